#include "cuda/device.h"

#include <string>

#include "cuda/cublaslt.h"
#include "cuda/cuda_backend.h"
#include "cuda/meeting_place.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {

namespace {

// 12040 is CUDA 12.4.
std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

// Asked for by name, to learn whether the library has code that the device runs.
__global__ void probe() {}

}  // namespace

int count_devices() {
  int driver = 0;
  int built_for = 0;
  check(cudaDriverGetVersion(&driver), "version of the driver");
  check(driver > 0, "no NVIDIA driver is here (libcuda.so.1); in a container: it was started without GPUs");
  check(cudaRuntimeGetVersion(&built_for), "version of the runtime");
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  check(result != cudaErrorInsufficientDriver, "the NVIDIA driver is for CUDA ", version_text(driver), ", Parley's library was built with CUDA ",
        version_text(built_for), ": install a newer driver, or build with the driver's CUDA");
  check(result != cudaErrorNoDevice && (result != cudaSuccess || count > 0),
        "the NVIDIA driver has no GPU for this process; nvidia-smi lists those that there are, CUDA_VISIBLE_DEVICES hides some");
  check(result, "number of GPUs");
  return count;
}

CudaDevice describe(int device) {
  const int count = count_devices();
  check(device >= 0 && device < count, "GPU ", device, ": expected 0 to ", count - 1);
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "properties of the GPU");
  check(properties.major >= 8, "GPU ", device, " (", properties.name, "): compute capability ", properties.major, ".", properties.minor,
        ", expected 8.0 or newer");
  check(cudaSetDevice(device), "choice of the GPU");
  cudaFuncAttributes attributes;
  const cudaError_t code = cudaFuncGetAttributes(&attributes, probe);
  check(code != cudaErrorNoKernelImageForDevice, "GPU ", device, " (", properties.name, "): Parley's library has no code for compute capability ",
        properties.major, ".", properties.minor, "; build it with PARLEY_CUDA_ARCHS=", properties.major, properties.minor);
  check(code, "code for the GPU");
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "free memory of the GPU");
  return {properties.name, properties.major, properties.minor, static_cast<int64_t>(total_bytes), static_cast<int64_t>(free_bytes),
          CublasLt::open() != nullptr};
}

}  // namespace cuda
}  // namespace parley

extern "C" __attribute__((visibility("default"))) const parley::CudaLibrary* parley_cuda_library() {
  static const parley::CudaLibrary the_one{parley::kInterface, parley::cuda::count_devices, parley::cuda::describe,
                                           parley::make_cuda_backend, parley::cuda::make_meeting_place};
  return &the_one;
}

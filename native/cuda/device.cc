#include "cuda/device.h"

#include "cuda/cuda_backend.h"
#include "cuda/meeting_place.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {

int count_devices() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "no GPU can be used");
  check(count > 0, "CUDA: no GPU can be used: the driver has none");
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
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "free memory of the GPU");
  return {properties.name, properties.major, properties.minor, static_cast<int64_t>(total_bytes), static_cast<int64_t>(free_bytes)};
}

}  // namespace cuda
}  // namespace parley

extern "C" __attribute__((visibility("default"))) const parley::CudaLibrary* parley_cuda_library() {
  static const parley::CudaLibrary the_one{parley::kInterface, parley::cuda::count_devices, parley::cuda::describe,
                                           parley::make_cuda_backend, parley::cuda::make_meeting_place};
  return &the_one;
}

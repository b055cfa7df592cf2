#include "cuda/hopper.h"

#include "base/check.h"
#include "cuda/packed_weight.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {
namespace {

// Asked for by name, to learn what the library was built for.
__global__ void probe() {}

}  // namespace

bool runs_hopper_kernels() {
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device), "the current GPU");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "compute capability");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "compute capability");
  if (major != 9 || minor != 0) return false;
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, probe), "code for the GPU");
  return attributes.ptxVersion == 90;  // else the driver has compiled the code of an older GPU
}

#ifdef PARLEY_CUDA_EMULATED

CUtensorMap tensor_map(const void* data, DType, int64_t rows, int64_t pitch, int box_rows) {
  check(reinterpret_cast<uintptr_t>(data) % 16 == 0 && rows > 0 && pitch % 8 == 0 && pitch >= kUnitCols && box_rows > 0 && box_rows <= 256, "tensor map");
  return {data, rows, pitch, box_rows};
}

#else

CUtensorMap tensor_map(const void* data, DType dtype, int64_t rows, int64_t pitch, int box_rows) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found), "cuTensorMapEncodeTiled");
#else
    check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found), "cuTensorMapEncodeTiled");
#endif
    check(found == cudaDriverEntryPointSuccess, "the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(pitch), static_cast<cuuint64_t>(rows)};
  const cuuint64_t row_bytes[] = {static_cast<cuuint64_t>(pitch) * 2};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(kUnitCols), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  CUtensorMap map;
  const CUresult result =
      encode(&map, dtype == DType::float16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes,
             row_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check(result == CUDA_SUCCESS, "tensor map of ", rows, " x ", pitch, " in boxes of ", box_rows, " rows: CUDA error ", static_cast<int>(result));
  return map;
}

#endif

}  // namespace cuda
}  // namespace parley

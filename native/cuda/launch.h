// Starts kernels, and gives them their shared memory.
#pragma once

#include <cstdint>

#include "cuda/status.h"

namespace parley {
namespace cuda {

// Shared memory that a block may have on every supported GPU (compute capability 8.6 and 8.9 have the least), static and dynamic.
constexpr int64_t kMaxSharedBytes = 99 * 1024;

// Starts `kernel` in `stream` with dynamic_shared<>() of shared_bytes. grid and block must not be empty. Throws Error.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes, cudaStream_t stream, Arguments... arguments) {
  constexpr int64_t kWithoutAsking = 32 * 1024;  // 48 KiB, of which static arrays need some
  if (shared_bytes > kWithoutAsking) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          "more shared memory for a kernel");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), "start of a kernel");
}

// The block's dynamic shared memory, aligned to 1,024 bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef PARLEY_CUDA_EMULATED
  return static_cast<T*>(emulator::dynamic_shared());
#else
  extern __shared__ __align__(1024) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#endif
}

}  // namespace cuda
}  // namespace parley

// Starts kernels, and gives them their shared memory.
//
// On compute capability 9.0 and newer a kernel comes to stand on the multiprocessors while the one before it ends ("programmatic dependent
// launch"), so that its start is no gap between the two. That asks of every kernel to call wait_for_previous_kernel().
#pragma once

#include <cstdint>

#include "cuda/status.h"

namespace parley {
namespace cuda {

// Shared memory that a block may have on every supported GPU (compute capability 8.6 and 8.9 have the least), static and dynamic.
constexpr int64_t kMaxSharedBytes = 99 * 1024;

// Every kernel calls this before it reads or writes what another kernel or the host may: returns when all kernels before this one in the
// stream have ended and what they wrote is there. All of them, because each one has itself waited for the one before it.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

// The kernel behind this one may take room as soon as all blocks have called this; else as each of them ends. Called early it also places the
// next one's blocks unevenly, on multiprocessors that have room at the time, so it is for kernels of few rows, behind which stands a pass that
// reads weights meanwhile (linear_hopper_few.cu: one block a multiprocessor): steps of up to 64 rows take 2 to 4% less (Pythia-6.9B on an H200),
// prompts would take up to 4% more. Not for kernels that wait for others of other streams: what stands behind them takes the room that those need.
__device__ __forceinline__ void start_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// The same in kernels of any number of rows: those of many let the next one wait.
constexpr int64_t kMostEarlyRows = 64;
__device__ __forceinline__ void start_next_kernel(int64_t rows) {
  if (rows <= kMostEarlyRows) start_next_kernel();
}

// Whether kernels on the current device were compiled so that they wait: from code for 9.0 or newer.
bool kernels_wait();

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
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = kernels_wait() ? 1 : 0;
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

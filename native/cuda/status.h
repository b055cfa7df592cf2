// The result of every CUDA call goes through check.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "base/check.h"

namespace parley {
namespace cuda {

// The GPU, or the host for pinned memory, has no room.
struct OutOfMemory : Error {
  using Error::Error;
};

// Why nothing runs on the GPU any more in this process, such as an access to an illegal address; empty: it runs. Any thread.
std::string broken();

// Throws Error that the GPU has not done it in so many milliseconds, and makes that the reason of broken().
[[noreturn]] void give_up(const char* what, int64_t ms);

// Throws Error, or OutOfMemory, with what was tried and CUDA's own words for why it failed.
[[noreturn]] void throw_failure(cudaError_t result, const char* what);

}  // namespace cuda

inline void check(cudaError_t result, const char* what) {
  if (result != cudaSuccess) cuda::throw_failure(result, what);
}

}  // namespace parley

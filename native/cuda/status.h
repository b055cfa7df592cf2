// The result of every CUDA call goes through check.
#pragma once

#include <cuda_runtime.h>

#include "base/check.h"

namespace parley {

// Throws Error with what was tried and CUDA's own words for why it failed.
inline void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  cudaGetLastError();  // else the next call that asks for it would fail for this one
  fail("CUDA: ", what, ": ", cudaGetErrorString(result), " (", cudaGetErrorName(result), ")");
}

}  // namespace parley

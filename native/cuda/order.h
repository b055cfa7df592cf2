// Floats as integers that compare like them, and the order of a row's numbers.
#pragma once

#include <cstdint>

namespace parley {
namespace cuda {

// Compares like the floats; -0 equals 0, NaN lies outside of the infinities.
__device__ inline uint32_t order_of(float x) {
  const uint32_t key = __float_as_uint(x + 0.0f);
  return key ^ (key >> 31 ? 0xffffffffu : 0x80000000u);
}

// The larger number is the better one; among equals, the one with the lower id.
__device__ inline uint64_t ranked(float logit, int64_t id) {
  return static_cast<uint64_t>(order_of(logit)) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ inline int32_t id_of(uint64_t ranked) { return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(ranked)); }

}  // namespace cuda
}  // namespace parley

// Overflow-safe arithmetic for sizes that come from a file or a caller.
#pragma once

#include <cstdint>

#include "base/check.h"

namespace parley {

// a * b for non-negative sizes; throws instead of wrapping around.
inline int64_t checked_mul(int64_t a, int64_t b) {
  int64_t result = 0;
  check(a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, &result), "size overflow: ", a, " * ", b);
  return result;
}

// a + b for non-negative sizes; throws instead of wrapping around.
inline int64_t checked_add(int64_t a, int64_t b) {
  int64_t result = 0;
  check(a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, &result), "size overflow: ", a, " + ", b);
  return result;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace parley

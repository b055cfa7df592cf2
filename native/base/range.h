// Numbers in a row: first, first + 1 ... end - 1; and how such a row is shared out.
#pragma once

#include <cstdint>

namespace parley {

struct Range {
  int64_t first = 0;
  int64_t count = 0;

  int64_t end() const { return first + count; }
  bool has(int64_t i) const { return i >= first && i < end(); }
  // Each of the numbers as `size` smaller ones: heads become the columns of these heads.
  Range times(int64_t size) const { return {first * size, count * size}; }
};

// The part of 0..count - 1 that is the share of `index` of `shares`: as even as whole numbers are, the larger shares last.
inline Range share_of(int64_t count, int64_t index, int64_t shares) {
  const int64_t first = count * index / shares;
  return {first, count * (index + 1) / shares - first};
}

}  // namespace parley

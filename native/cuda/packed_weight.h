// How a weight [rows, cols] lies in a GPU's memory: row-major, every row padded with zeros to whole units of 64 numbers, so that a row
// starts at a memory line and no kernel meets the end of one inside a load. There is one copy: the kernels of linear and cuBLASLt read it.
#pragma once

#include <cstdint>

#include "base/arithmetic.h"
#include "base/dtype.h"

namespace parley {
namespace cuda {

// Columns that the kernels of `linear` read at a time: 128 bytes of a 16-bit type.
constexpr int64_t kUnitCols = 64;

// Numbers from one row to the next.
inline int64_t row_pitch(int64_t cols) { return ceil_div(cols, kUnitCols) * kUnitCols; }

inline int64_t packed_weight_bytes(int64_t rows, int64_t cols, DType dtype) {
  return checked_mul(checked_mul(rows, row_pitch(cols)), dtype_bytes(dtype));
}

}  // namespace cuda
}  // namespace parley

// Views of memory that somebody else owns: the only shapes that ops speak. Their functions are constexpr because a GPU's kernels may call
// such ones (nvcc --expt-relaxed-constexpr).
#pragma once

#include <cstddef>
#include <cstdint>

namespace parley {

// n numbers in a row.
template <class T>
struct Span {
  T* data = nullptr;
  int64_t size = 0;

  constexpr T& operator[](int64_t i) const { return data[i]; }
  constexpr bool empty() const { return size == 0; }
  constexpr T* begin() const { return data; }
  constexpr T* end() const { return data + size; }
  constexpr operator Span<const T>() const { return {data, size}; }
};

// A row-major matrix [rows, cols] whose rows start `stride` numbers apart (stride >= cols).
template <class T>
struct Matrix {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  Matrix() = default;
  constexpr Matrix(T* data, int64_t rows, int64_t cols) : data(data), rows(rows), cols(cols), stride(cols) {}
  constexpr Matrix(T* data, int64_t rows, int64_t cols, int64_t stride) : data(data), rows(rows), cols(cols), stride(stride) {}

  constexpr T* row(int64_t r) const { return data + r * stride; }
  constexpr operator Matrix<const T>() const { return {data, rows, cols, stride}; }
};

}  // namespace parley

// Views of memory that somebody else owns: the only shapes that ops speak. Their functions are constexpr because a GPU's kernels may call
// such ones (nvcc --expt-relaxed-constexpr).
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/dtype.h"

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

// The same with numbers of a type that is known when the program runs. Void: void or const void.
template <class Void>
struct TypedMatrix {
  using Float = std::conditional_t<std::is_const_v<Void>, const float, float>;
  using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;

  Void* data = nullptr;
  DType dtype = DType::float32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  TypedMatrix() = default;
  constexpr TypedMatrix(Void* data, DType dtype, int64_t rows, int64_t cols) : data(data), dtype(dtype), rows(rows), cols(cols), stride(cols) {}
  constexpr TypedMatrix(Void* data, DType dtype, int64_t rows, int64_t cols, int64_t stride)
      : data(data), dtype(dtype), rows(rows), cols(cols), stride(stride) {}
  constexpr TypedMatrix(Float* floats, int64_t rows, int64_t cols) : TypedMatrix(Matrix<Float>(floats, rows, cols)) {}
  constexpr TypedMatrix(Float* floats, int64_t rows, int64_t cols, int64_t stride) : TypedMatrix(Matrix<Float>(floats, rows, cols, stride)) {}
  template <class Number, class = std::enable_if_t<std::is_convertible_v<Number*, Float*>>>
  constexpr TypedMatrix(const Matrix<Number>& floats)
      : data(floats.data), rows(floats.rows), cols(floats.cols), stride(floats.stride) {}
  constexpr operator TypedMatrix<const void>() const { return {data, dtype, rows, cols, stride}; }

  // Where number `col` of a row is.
  constexpr Void* at(int64_t row, int64_t col) const { return static_cast<Byte*>(data) + (row * stride + col) * dtype_bytes(dtype); }
  // Itself; its type must be float32.
  constexpr Matrix<Float> floats() const { return {static_cast<Float*>(data), rows, cols, stride}; }
};

}  // namespace parley

// Numbers of a row, one or several at a time, and the 16-bit types as float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "base/check.h"
#include "base/dtype.h"

namespace parley {
namespace cuda {

// kWidth numbers side by side that are read and written at once; aligned to their size.
template <class Number, int kWidth>
struct alignas(sizeof(Number) * kWidth) Pack {
  Number numbers[kWidth];
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class Number>
__device__ __forceinline__ Number from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }
template <>
__device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

template <int kWidth, class Number>
__device__ __forceinline__ Pack<Number, kWidth> load_pack(const Number* from) {
  return *reinterpret_cast<const Pack<Number, kWidth>*>(from);
}
template <int kWidth, class Number>
__device__ __forceinline__ void store_pack(Number* to, const Pack<Number, kWidth>& pack) {
  *reinterpret_cast<Pack<Number, kWidth>*>(to) = pack;
}

// Numbers `index` .. of an array become the pack's, rounded to their type.
template <class Number, int kWidth>
__device__ __forceinline__ void store_as(void* to, int64_t index, const Pack<float, kWidth>& pack) {
  Pack<Number, kWidth> stored;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) stored.numbers[i] = from_float<Number>(pack.numbers[i]);
  store_pack<kWidth>(static_cast<Number*>(to) + index, stored);
}

// The same where the type is known when the kernel runs.
template <int kWidth>
__device__ __forceinline__ void store_rounded(void* to, DType dtype, int64_t index, const Pack<float, kWidth>& pack) {
  if (dtype == DType::float32) {
    store_as<float>(to, index, pack);
  } else if (dtype == DType::float16) {
    store_as<__half>(to, index, pack);
  } else {
    store_as<__nv_bfloat16>(to, index, pack);
  }
}

// Whether rows that start at `data` and lie `stride` numbers apart can be read four numbers at a time to their ends.
inline bool by_fours(const void* data, int64_t stride, int64_t cols, int64_t number_bytes = 4) {
  return cols % 4 == 0 && stride % 4 == 0 && reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(4 * number_bytes) == 0;
}

// function(null pointer of the device's type) for a DType.
template <class Function>
void with_type(DType dtype, const Function& function) {
  switch (dtype) {
    case DType::float32: return function(static_cast<float*>(nullptr));
    case DType::float16: return function(static_cast<__half*>(nullptr));
    case DType::bfloat16: return function(static_cast<__nv_bfloat16*>(nullptr));
  }
  fail("unknown dtype ", static_cast<int>(dtype));
}

}  // namespace cuda
}  // namespace parley

// Sums in the order of the op `sum`: neighbours first, then the sums of neighbours, ((0 + 1) + (2 + 3)) + 4.
#pragma once

#include "cuda/numbers.h"

namespace parley {
namespace cuda {

__device__ inline float add(float a, float b) { return a + b; }
__device__ inline float4 add(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
template <int kWidth>
__device__ inline Pack<float, kWidth> add(Pack<float, kWidth> a, const Pack<float, kWidth>& b) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) a.numbers[i] += b.numbers[i];
  return a;
}

// load(first) + .. + load(first + n - 1), n a power of two.
template <int n, class Load>
__device__ auto tree_sum(const Load& load, int first = 0) {
  if constexpr (n == 1) {
    return load(first);
  } else {
    return add(tree_sum<n / 2>(load, first), tree_sum<n / 2>(load, first + n / 2));
  }
}

// load(first) + .. + load(end - 1), at most n of them, n a power of two; of what is not there nothing is added. At least one is there.
template <int n, class Load>
__device__ auto tree_sum_until(const Load& load, int first, int end) {
  if constexpr (n == 1) {
    return load(first);
  } else {
    auto sum = tree_sum_until<n / 2>(load, first, end);
    return first + n / 2 < end ? add(sum, tree_sum_until<n / 2>(load, first + n / 2, end)) : sum;
  }
}

// load(0) + .. + load(count - 1), at most n of them, n a power of two; none make zeros.
template <int n, class Load>
__device__ auto tree_sum_up_to(int count, const Load& load) {
  if (count == 0) return decltype(load(0)){};
  if (count == 2) return tree_sum<2>(load);
  if constexpr (n > 8) {
    if (count > 8) return tree_sum_until<n>(load, 0, count);
  }
  return tree_sum_until<8>(load, 0, count);
}

}  // namespace cuda
}  // namespace parley

// LayerNorm and RMSNorm of one run of numbers. LayerNorm: mean, then the mean of the squared distances, then
// (x - mean) / sqrt(variance + eps) * weight + bias. Sums run in 16 lanes over the columns and are folded in a fixed tree.
#pragma once

#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// out = (x - mean) * factor * weight + bias; no weight is 1, no bias 0.
PARLEY_INLINE void scale_and_shift(float* out, const float* x, const float* weight, const float* bias, int64_t n, Vec mean, Vec factor) {
  each_vector(out, n, [&](int64_t i, int64_t left) {
    const Vec y = (load_some(x + i, left) - mean) * factor;
    if (!weight) return bias ? y + load_some(bias + i, left) : y;
    return bias ? fma(y, load_some(weight + i, left), load_some(bias + i, left)) : y * load_some(weight + i, left);
  });
}

void layer_norm(float* out, const float* x, const float* weight, const float* bias, int64_t n, float eps) {
  const int64_t whole = n / kLanes * kLanes;
  const int64_t rest = n - whole;
  const float count = static_cast<float>(n);

  Vec total = zero();
  for (int64_t i = 0; i < whole; i += kLanes) total = total + load(x + i);
  if (rest) total = total + load_partial(x + whole, rest);
  const Vec mean = broadcast(sum(total) / count);

  Vec squares = zero();
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Vec distance = load(x + i) - mean;
    squares = fma(distance, distance, squares);
  }
  if (rest) {
    const Vec distance = load_partial(x + whole, rest) - first_of(mean, rest);
    squares = fma(distance, distance, squares);
  }
  const Vec factor = broadcast(1.0f / __builtin_sqrtf(sum(squares) / count + eps));
  scale_and_shift(out, x, weight, bias, n, mean, factor);
}

void rms_norm(float* out, const float* x, const float* weight, int64_t n, float eps) {
  Vec squares = zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec value = load_some(x + i, n - i);
    squares = fma(value, value, squares);
  }
  const Vec factor = broadcast(1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(n) + eps));
  scale_and_shift(out, x, weight, nullptr, n, zero(), factor);
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

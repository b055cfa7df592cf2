// LayerNorm of one row: mean, then the mean of the squared distances, then (x - mean) / sqrt(variance + eps) * weight + bias.
// Sums run in 16 lanes over the columns and are folded in a fixed tree.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// The first n lanes of v, zeros behind them.
PARLEY_INLINE Vec first_of(Vec v, int64_t n) {
  float lanes[kLanes];
  store(lanes, v);
  return load_partial(lanes, n);
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

  for (int64_t i = 0; i < whole; i += kLanes) {
    store(out + i, fma((load(x + i) - mean) * factor, load(weight + i), load(bias + i)));
  }
  if (rest) {
    const Vec scaled = (load_partial(x + whole, rest) - mean) * factor;
    store_partial(out + whole, fma(scaled, load_partial(weight + whole, rest), load_partial(bias + whole, rest)), rest);
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

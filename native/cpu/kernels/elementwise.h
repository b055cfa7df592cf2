// What happens to the numbers of a row one by one.
#pragma once

#include "cpu/kernels/activation.h"
#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// function(i, n) for every vector of a row, n = 16 but for the last one; it returns what goes to out + i.
template <class Function>
PARLEY_INLINE void each_vector(float* out, int64_t size, const Function& function) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(out + i, function(i, kLanes));
  if (i < size) store_partial(out + i, function(i, size - i), size - i);
}

PARLEY_INLINE Vec load_some(const float* at, int64_t n) { return n < kLanes ? load_partial(at, n) : load(at); }

// The first n lanes of v, zeros behind them.
PARLEY_INLINE Vec first_of(Vec v, int64_t n) {
  float lanes[kLanes];
  store(lanes, v);
  return load_partial(lanes, n);
}

void sum(float* out, const float* const* parts, int64_t num_parts, const float* bias, int64_t n, bool accumulate) {
  each_vector(out, n, [&](int64_t i, int64_t left) {
    Vec waiting[8];  // for their neighbour: sums of 1, 2, 4 .. parts
    Vec total = broadcast(0.0f);
    for (int64_t p = 0; p < num_parts; ++p) {
      total = load_some(parts[p] + i, left);
      int level = 0;
      for (; (p >> level) & 1; ++level) total = waiting[level] + total;
      if (p + 1 < num_parts) waiting[level] = total;
    }
    // The last one waits for nobody: it joins those that do, of 1 part, of 2, of 4 ..
    for (int64_t rest = num_parts & (num_parts - 1), level = 0; rest >> level > 0; ++level) {
      if ((rest >> level) & 1) total = waiting[level] + total;
    }
    if (bias != nullptr) total = total + load_some(bias + i, left);
    return accumulate ? load_some(out + i, left) + total : total;
  });
}

void softcap(float* x, int64_t n, float cap) {
  each_vector(x, n, [&](int64_t i, int64_t left) {
    return broadcast(cap) * tanh(load_some(x + i, left) * broadcast(1.0f / cap));
  });
}

template <Vec (*activation)(Vec)>
PARLEY_INLINE void gate_with(float* out, const float* x, int64_t n) {
  each_vector(out, n, [&](int64_t i, int64_t left) { return activation(load_some(x + i, left)) * load_some(x + n + i, left); });
}

// activation: value of Activation.
void gate(float* out, const float* x, int64_t n, int32_t activation) {
  switch (activation) {
    case 0: gate_with<gelu>(out, x, n); break;
    case 1: gate_with<gelu_tanh>(out, x, n); break;
    case 2: gate_with<relu>(out, x, n); break;
    default: gate_with<silu>(out, x, n); break;
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

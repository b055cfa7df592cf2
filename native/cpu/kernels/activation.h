// The activations that `linear` can apply to its outputs.
#pragma once

#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// x Phi(x), exact: Phi(x) = 1 - Q(x) above zero and Q(-x) below, so that nothing cancels.
PARLEY_INLINE Vec gelu(Vec x) {
  const Vec tail = normal_tail(abs(x));
  const Vec phi = select(less(x, zero()), tail, broadcast(1.0f) - tail);
  return x * phi;
}

// 0.5 x (1 + tanh u) = x / (1 + e^(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3).
PARLEY_INLINE Vec gelu_tanh(Vec x) {
  const Vec u = x * fma(x * x, broadcast(0.044715f * 0.7978845608f), broadcast(0.7978845608f));
  return x / (broadcast(1.0f) + exp(u * broadcast(-2.0f)));
}

// x sigmoid(x)
PARLEY_INLINE Vec silu(Vec x) { return x / (broadcast(1.0f) + exp(zero() - x)); }

PARLEY_INLINE Vec relu(Vec x) { return max(zero(), x); }  // NaN stays NaN

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

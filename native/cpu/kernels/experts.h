// Which experts a token goes to, and the sum of what they say.
#pragma once

#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// Sum of e^(logit - top) in 16 lanes over the columns, folded in a fixed tree.
float exp_sum(const float* logits, int64_t n, float top) {
  Vec total = zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec weight = exp(load_some(logits + i, n - i) - broadcast(top));
    total = total + (n - i < kLanes ? first_of(weight, n - i) : weight);
  }
  return sum(total);
}

void route(int32_t* experts, float* shares, const float* logits, int64_t num_experts, int64_t num_chosen, bool normalise) {
  // The largest logits so far stand in `shares`, in order; an equal one comes behind those before it.
  int64_t count = 0;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    const float logit = logits[expert];
    if (count == num_chosen && !(logit > shares[count - 1])) continue;
    if (count < num_chosen) ++count;
    int64_t place = count - 1;
    for (; place > 0 && logit > shares[place - 1]; --place) {
      shares[place] = shares[place - 1];
      experts[place] = experts[place - 1];
    }
    shares[place] = logit;
    experts[place] = static_cast<int32_t>(expert);
  }
  const float top = shares[0];
  const float total = normalise ? exp_sum(shares, num_chosen, top) : exp_sum(logits, num_experts, top);
  each_vector(shares, num_chosen, [&](int64_t i, int64_t left) {
    return exp(load_some(shares + i, left) - broadcast(top)) / broadcast(total);
  });
}

void add_shares(float* out, const float* x, int64_t x_stride, const int32_t* rows, const float* shares, int64_t num_rows, int64_t n) {
  each_vector(out, n, [&](int64_t i, int64_t left) {
    Vec sum = zero();
    for (int64_t j = 0; j < num_rows; ++j) sum = fma(broadcast(shares[j]), load_some(x + rows[j] * x_stride + i, left), sum);
    return load_some(out + i, left) + sum;
  });
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

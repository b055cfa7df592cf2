// Rotary position embedding and writing a row's keys and values into its KV page.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

PARLEY_INLINE void rotate(float* a_at, float* b_at, Vec a, Vec b, Vec cosine, Vec sine, int64_t n) {
  const Vec new_a = fma(a, cosine, zero() - b * sine);
  const Vec new_b = fma(b, cosine, a * sine);
  if (n >= kLanes) {
    store(a_at, new_a);
    store(b_at, new_b);
  } else {
    store_partial(a_at, new_a, n);
    store_partial(b_at, new_b, n);
  }
}

// Pairs (2i, 2i + 1). A few numbers a head: not worth shuffles.
void rope_interleaved(float* heads, int64_t num_heads, int64_t head_dim, const float* cos_sin, int64_t half) {
  for (int64_t h = 0; h < num_heads; ++h) {
    float* pair = heads + h * head_dim;
    for (int64_t i = 0; i < half; ++i, pair += 2) {
      const float a = pair[0], b = pair[1];
      pair[0] = a * cos_sin[i] - b * cos_sin[half + i];
      pair[1] = b * cos_sin[i] + a * cos_sin[half + i];
    }
  }
}

void rope(float* heads, int64_t num_heads, int64_t head_dim, const float* cos_sin, int64_t half, bool interleaved) {
  if (interleaved) return rope_interleaved(heads, num_heads, head_dim, cos_sin, half);
  const float* cosines = cos_sin;
  const float* sines = cos_sin + half;
  for (int64_t h = 0; h < num_heads; ++h) {
    float* a = heads + h * head_dim;
    float* b = a + half;
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      rotate(a + i, b + i, load(a + i), load(b + i), load(cosines + i), load(sines + i), kLanes);
    }
    const int64_t rest = half - i;
    if (rest) {
      rotate(a + i, b + i, load_partial(a + i, rest), load_partial(b + i, rest), load_partial(cosines + i, rest),
             load_partial(sines + i, rest), rest);
    }
  }
}

template <class Number>
void write_kv_of(Number* keys, Number* values, const float* key, const float* value, int64_t num_kv_heads, int64_t head_dim,
                 int64_t slot) {
  constexpr int64_t kLineNumbers = 64 / static_cast<int64_t>(sizeof(Number));
  const int64_t offset = slot % kPageTokens;
  const int64_t page = slot / kPageTokens * num_kv_heads * head_dim * kPageTokens;
  // A key goes into all lines of its head's part of the page: they are asked for while the head before is written.
  const auto prefetch_keys = [&](int64_t h) {
    const Number* head_keys = keys + page + h * head_dim * kPageTokens;
    for (int64_t i = 0; i < head_dim * kPageTokens; i += kLineNumbers) __builtin_prefetch(head_keys + i, 1);
  };
  prefetch_keys(0);
  for (int64_t h = 0; h < num_kv_heads; ++h) {
    if (h + 1 < num_kv_heads) prefetch_keys(h + 1);
    Number* head_keys = keys + page + h * head_dim * kPageTokens + offset;
    Number* head_values = values + page + (h * kPageTokens + offset) * head_dim;
    for (int64_t i = 0; i < head_dim; i += kLanes) {
      const int64_t n = head_dim - i < kLanes ? head_dim - i : kLanes;
      const bool whole = n == kLanes;
      const float* k = key + h * head_dim + i;
      const float* v = value + h * head_dim + i;
      Number column[kLanes];
      store(column, whole ? load(k) : load_partial(k, n));
      for (int64_t j = 0; j < n; ++j) head_keys[(i + j) * kPageTokens] = column[j];
      if (whole) {
        store(head_values + i, load(v));
      } else {
        store_partial(head_values + i, load_partial(v, n), n);
      }
    }
  }
}

void write_kv(void* keys, void* values, NumberType dtype, const float* key, const float* value, int64_t num_kv_heads,
              int64_t head_dim, int64_t slot) {
  if (dtype == NumberType::float32) {
    write_kv_of(static_cast<float*>(keys), static_cast<float*>(values), key, value, num_kv_heads, head_dim, slot);
  } else if (dtype == NumberType::float16) {
    write_kv_of(static_cast<Fp16*>(keys), static_cast<Fp16*>(values), key, value, num_kv_heads, head_dim, slot);
  } else {
    write_kv_of(static_cast<Bf16*>(keys), static_cast<Bf16*>(values), key, value, num_kv_heads, head_dim, slot);
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

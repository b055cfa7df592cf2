// 16 float32 in two AVX2 registers. Needs AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace parley {
namespace PARLEY_ISA {
namespace {

// 16 registers: 12 accumulators, which are 6 tokens x 16 outputs; or 8 and four weights: 2 tokens x 32.
constexpr int kStreamTokens = 2;
constexpr int kStreamSums = 4;
constexpr int kGroupTokens = 6;
constexpr int kManyTokens = 13;
constexpr int kBlockedVecs = 1;
constexpr int kAttentionRows = 4;
constexpr int kAttentionSums = 4;
constexpr int kFmaAccumulators = 6;

struct Vec {
  __m256 a, b;
};
struct Mask {
  __m256 a, b;
};

PARLEY_INLINE __m256i lanes_below(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

PARLEY_INLINE Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
PARLEY_INLINE Vec broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }

PARLEY_INLINE __m256 from_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
PARLEY_INLINE __m128i to_fp16(__m256 v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PARLEY_INLINE __m128i to_bf16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i result = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1));
}

PARLEY_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
PARLEY_INLINE Vec load(const Fp16* p) {
  const __m128i* halves = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
PARLEY_INLINE Vec load(const Bf16* p) {
  const __m128i* halves = reinterpret_cast<const __m128i*>(p);
  return {from_bf16(_mm_loadu_si128(halves)), from_bf16(_mm_loadu_si128(halves + 1))};
}
PARLEY_INLINE Vec load_partial(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, lanes_below(n)), n > 8 ? _mm256_maskload_ps(p + 8, lanes_below(n - 8)) : _mm256_setzero_ps()};
}
template <class Half>
PARLEY_INLINE Vec load_partial(const Half* p, int64_t n) {
  Half whole[16] = {};
  for (int64_t i = 0; i < n; ++i) whole[i] = p[i];
  return load(whole);
}

PARLEY_INLINE void store(float* p, Vec v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
PARLEY_INLINE void store(Fp16* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_fp16(v.a));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p) + 1, to_fp16(v.b));
}
PARLEY_INLINE void store(Bf16* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bf16(v.a));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p) + 1, to_bf16(v.b));
}
PARLEY_INLINE void store_partial(float* p, Vec v, int64_t n) {
  _mm256_maskstore_ps(p, lanes_below(n), v.a);
  if (n > 8) _mm256_maskstore_ps(p + 8, lanes_below(n - 8), v.b);
}
template <class Half>
PARLEY_INLINE void store_partial(Half* p, Vec v, int64_t n) {
  Half whole[16];
  store(whole, v);
  for (int64_t i = 0; i < n; ++i) p[i] = whole[i];
}

PARLEY_INLINE Vec operator+(Vec x, Vec y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
PARLEY_INLINE Vec operator-(Vec x, Vec y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
PARLEY_INLINE Vec operator*(Vec x, Vec y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
PARLEY_INLINE Vec operator/(Vec x, Vec y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
PARLEY_INLINE Vec fma(Vec x, Vec y, Vec z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
PARLEY_INLINE Vec max(Vec x, Vec y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
PARLEY_INLINE Vec min(Vec x, Vec y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
PARLEY_INLINE Vec abs(Vec x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
PARLEY_INLINE Vec round(Vec x) {
  return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
PARLEY_INLINE Vec pow2(Vec n) {
  const __m256i bias = _mm256_set1_epi32(127);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.a), bias), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.b), bias), 23))};
}

// In two steps, so that 2^n and 1 / 2^n both have a float32 and subnormal results come out right.
PARLEY_INLINE Vec scale(Vec x, Vec n) {
  const Vec half = round(n * broadcast(0.5f));
  return (x * pow2(half)) * pow2(n - half);
}

PARLEY_INLINE Mask less(Vec x, Vec y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)}; }
PARLEY_INLINE Mask less_equal(Vec x, Vec y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_LE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LE_OQ)};
}
PARLEY_INLINE Mask equal(Vec x, Vec y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)}; }
PARLEY_INLINE Vec select(Mask mask, Vec x, Vec y) {
  return {_mm256_blendv_ps(y.a, x.a, mask.a), _mm256_blendv_ps(y.b, x.b, mask.b)};
}
PARLEY_INLINE uint32_t bits(Mask mask) {
  return static_cast<uint32_t>(_mm256_movemask_ps(mask.a)) | static_cast<uint32_t>(_mm256_movemask_ps(mask.b)) << 8;
}

PARLEY_INLINE float sum(Vec v) {
  const __m256 b = _mm256_add_ps(v.a, v.b);
  const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
PARLEY_INLINE float largest(Vec v) {
  const __m256 b = _mm256_max_ps(v.a, v.b);
  const __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

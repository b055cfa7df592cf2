// 16 float32 in one AVX-512 register. Needs F, BW, DQ, VL and F16C. AMX has the same vectors beside its tiles.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace parley {
namespace PARLEY_ISA {
namespace {

// 32 registers: 24 accumulators leave room for four weights and broadcasts. 12 tokens x 32 outputs along whole panels, else 6 x 64.
constexpr int kStreamTokens = 12;
constexpr int kStreamSums = 24;
constexpr int kGroupTokens = 6;
constexpr int kManyTokens = 13;
constexpr int kBlockedVecs = 4;
constexpr int kAttentionRows = 8;
constexpr int kAttentionSums = 16;
constexpr int kFmaAccumulators = 24;

struct Vec {
  __m512 v;
};
struct Mask {
  __mmask16 m;
};

PARLEY_INLINE __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

PARLEY_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
PARLEY_INLINE Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }

PARLEY_INLINE Vec from_fp16(__m256i h) { return {_mm512_cvtph_ps(h)}; }
PARLEY_INLINE Vec from_bf16(__m256i h) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))}; }
PARLEY_INLINE __m256i to_fp16(Vec a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PARLEY_INLINE __m256i to_bf16(Vec a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i result = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(result, 16));
}

PARLEY_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
PARLEY_INLINE Vec load(const Fp16* p) { return from_fp16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
PARLEY_INLINE Vec load(const Bf16* p) { return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
PARLEY_INLINE Vec load_partial(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
PARLEY_INLINE Vec load_partial(const Fp16* p, int64_t n) { return from_fp16(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
PARLEY_INLINE Vec load_partial(const Bf16* p, int64_t n) { return from_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }

PARLEY_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
PARLEY_INLINE void store(Fp16* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_fp16(a)); }
PARLEY_INLINE void store(Bf16* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(a)); }
PARLEY_INLINE void store_partial(float* p, Vec a, int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
PARLEY_INLINE void store_partial(Fp16* p, Vec a, int64_t n) { _mm256_mask_storeu_epi16(p, first_lanes(n), to_fp16(a)); }
PARLEY_INLINE void store_partial(Bf16* p, Vec a, int64_t n) { _mm256_mask_storeu_epi16(p, first_lanes(n), to_bf16(a)); }

PARLEY_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
PARLEY_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
PARLEY_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
PARLEY_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
PARLEY_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
PARLEY_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
PARLEY_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
PARLEY_INLINE Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
PARLEY_INLINE Vec round(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
PARLEY_INLINE Vec scale(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }

PARLEY_INLINE Mask less(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
PARLEY_INLINE Mask less_equal(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
PARLEY_INLINE Mask equal(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
PARLEY_INLINE Vec select(Mask mask, Vec a, Vec b) { return {_mm512_mask_blend_ps(mask.m, b.v, a.v)}; }
PARLEY_INLINE uint32_t bits(Mask mask) { return mask.m; }

PARLEY_INLINE float sum(Vec a) {
  const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
PARLEY_INLINE float largest(Vec a) {
  const __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

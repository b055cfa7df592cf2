// 16 float32 in four NEON registers. Every 64-bit ARM has them, and conversions from and to float16.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace parley {
namespace PARLEY_ISA {
namespace {

// 24 accumulators in 32 registers: 6 tokens x 16 outputs; or 16 and eight weights: 2 tokens x 32.
constexpr int kStreamTokens = 2;
constexpr int kStreamSums = 4;
constexpr int kGroupTokens = 6;
constexpr int kManyTokens = 13;
constexpr int kBlockedVecs = 1;
constexpr int kAttentionRows = 4;
constexpr int kAttentionSums = 4;
constexpr int kFmaAccumulators = 6;

struct Vec {
  float32x4_t q[4];
};
struct Mask {
  uint32x4_t q[4];
};

#define PARLEY_EACH_QUAD _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i)

PARLEY_INLINE Vec broadcast(float x) {
  const float32x4_t q = vdupq_n_f32(x);
  return {{q, q, q, q}};
}
PARLEY_INLINE Vec zero() { return broadcast(0.0f); }

PARLEY_INLINE float32x4_t widen(uint16x4_t halves, const Fp16*) { return vcvt_f32_f16(vreinterpret_f16_u16(halves)); }
PARLEY_INLINE float32x4_t widen(uint16x4_t halves, const Bf16*) { return vreinterpretq_f32_u32(vshll_n_u16(halves, 16)); }

// The processor's own rounding is to nearest even, as base/dtype.h does it, unless somebody sets FPCR otherwise.
PARLEY_INLINE uint16x4_t narrow(float32x4_t v, const Fp16*) { return vreinterpret_u16_f16(vcvt_f16_f32(v)); }
PARLEY_INLINE uint16x4_t narrow(float32x4_t v, const Bf16*) {
  const uint32x4_t bits = vreinterpretq_u32_f32(v);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  return vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet), 16);
}

PARLEY_INLINE Vec load(const float* p) { return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}}; }
template <class Half>
PARLEY_INLINE Vec load(const Half* p) {
  Vec v;
  PARLEY_EACH_QUAD {
    uint16x4_t halves;
    __builtin_memcpy(&halves, p + 4 * i, sizeof halves);
    v.q[i] = widen(halves, p);
  }
  return v;
}
template <class Number>
PARLEY_INLINE Vec load_partial(const Number* p, int64_t n) {
  Number whole[16] = {};
  for (int64_t i = 0; i < n; ++i) whole[i] = p[i];
  return load(whole);
}

PARLEY_INLINE void store(float* p, Vec v) {
  PARLEY_EACH_QUAD vst1q_f32(p + 4 * i, v.q[i]);
}
template <class Half>
PARLEY_INLINE void store(Half* p, Vec v) {
  PARLEY_EACH_QUAD {
    const uint16x4_t halves = narrow(v.q[i], p);
    __builtin_memcpy(p + 4 * i, &halves, sizeof halves);
  }
}
template <class Number>
PARLEY_INLINE void store_partial(Number* p, Vec v, int64_t n) {
  Number whole[16];
  store(whole, v);
  for (int64_t i = 0; i < n; ++i) p[i] = whole[i];
}

// v.q[i] = function(i) for the four quads.
template <class Function>
PARLEY_INLINE Vec each_quad(const Function& function) {
  return {{function(0), function(1), function(2), function(3)}};
}
template <class Function>
PARLEY_INLINE Mask each_mask(const Function& function) {
  return {{function(0), function(1), function(2), function(3)}};
}

PARLEY_INLINE Vec operator+(Vec x, Vec y) {
  return each_quad([&](int i) { return vaddq_f32(x.q[i], y.q[i]); });
}
PARLEY_INLINE Vec operator-(Vec x, Vec y) {
  return each_quad([&](int i) { return vsubq_f32(x.q[i], y.q[i]); });
}
PARLEY_INLINE Vec operator*(Vec x, Vec y) {
  return each_quad([&](int i) { return vmulq_f32(x.q[i], y.q[i]); });
}
PARLEY_INLINE Vec operator/(Vec x, Vec y) {
  return each_quad([&](int i) { return vdivq_f32(x.q[i], y.q[i]); });
}
PARLEY_INLINE Vec fma(Vec x, Vec y, Vec z) {
  return each_quad([&](int i) { return vfmaq_f32(z.q[i], x.q[i], y.q[i]); });
}
// NEON's own maximum of a NaN and a number is NaN.
PARLEY_INLINE Vec max(Vec x, Vec y) {
  return each_quad([&](int i) { return vbslq_f32(vcgtq_f32(x.q[i], y.q[i]), x.q[i], y.q[i]); });
}
PARLEY_INLINE Vec min(Vec x, Vec y) {
  return each_quad([&](int i) { return vbslq_f32(vcltq_f32(x.q[i], y.q[i]), x.q[i], y.q[i]); });
}
PARLEY_INLINE Vec abs(Vec x) {
  return each_quad([&](int i) { return vabsq_f32(x.q[i]); });
}
PARLEY_INLINE Vec round(Vec x) {
  return each_quad([&](int i) { return vrndnq_f32(x.q[i]); });
}
PARLEY_INLINE Vec pow2(Vec n) {
  return each_quad([&](int i) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.q[i]), vdupq_n_s32(127)), 23));
  });
}

// In two steps, so that 2^n and 1 / 2^n both have a float32 and subnormal results come out right.
PARLEY_INLINE Vec scale(Vec x, Vec n) {
  const Vec half = round(n * broadcast(0.5f));
  return (x * pow2(half)) * pow2(n - half);
}

PARLEY_INLINE Mask less(Vec x, Vec y) {
  return each_mask([&](int i) { return vcltq_f32(x.q[i], y.q[i]); });
}
PARLEY_INLINE Mask less_equal(Vec x, Vec y) {
  return each_mask([&](int i) { return vcleq_f32(x.q[i], y.q[i]); });
}
PARLEY_INLINE Mask equal(Vec x, Vec y) {
  return each_mask([&](int i) { return vceqq_f32(x.q[i], y.q[i]); });
}
PARLEY_INLINE Vec select(Mask mask, Vec x, Vec y) {
  return each_quad([&](int i) { return vbslq_f32(mask.q[i], x.q[i], y.q[i]); });
}
PARLEY_INLINE uint32_t bits(Mask mask) {
  const uint32_t powers[4] = {1, 2, 4, 8};
  const uint32x4_t lanes = vld1q_u32(powers);
  uint32_t all = 0;
  PARLEY_EACH_QUAD all |= vaddvq_u32(vandq_u32(mask.q[i], lanes)) << 4 * i;
  return all;
}

PARLEY_INLINE float sum(Vec v) {
  const float32x4_t c = vaddq_f32(vaddq_f32(v.q[0], v.q[2]), vaddq_f32(v.q[1], v.q[3]));
  const float32x2_t d = vadd_f32(vget_low_f32(c), vget_high_f32(c));
  return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}
PARLEY_INLINE float largest(Vec v) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(v.q[0], v.q[1]), vmaxq_f32(v.q[2], v.q[3]))); }

#undef PARLEY_EACH_QUAD

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

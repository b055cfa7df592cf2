// 16 float32 in four 16-byte vectors of the compiler, which every processor has: SSE2 on x86-64.
#pragma once

#include <cstdint>
#include <cstring>

namespace parley {
namespace PARLEY_ISA {
namespace {

// 8 to 12 accumulators in SSE2's 16 registers: 3 tokens x 16 outputs.
constexpr int kStreamTokens = 1;
constexpr int kStreamSums = 2;
constexpr int kGroupTokens = 3;
constexpr int kManyTokens = 4;
constexpr int kBlockedVecs = 1;
constexpr int kAttentionRows = 2;
constexpr int kAttentionSums = 2;
constexpr int kFmaAccumulators = 3;

typedef float Quad __attribute__((vector_size(16)));
typedef int32_t IntQuad __attribute__((vector_size(16)));
typedef uint32_t UintQuad __attribute__((vector_size(16)));
typedef uint16_t HalfQuad __attribute__((vector_size(8)));

struct Vec {
  Quad q[4];
};
struct Mask {
  IntQuad q[4];
};

#define PARLEY_EACH_QUAD _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i)

PARLEY_INLINE Quad quad(float x) { return Quad{x, x, x, x}; }
PARLEY_INLINE Vec broadcast(float x) { return {{quad(x), quad(x), quad(x), quad(x)}}; }
PARLEY_INLINE Vec zero() { return broadcast(0.0f); }

// Infinities and NaN keep their exponent; else shifting exponent and mantissa into place leaves a number 2^112 too small,
// subnormals included, and one multiplication mends it.
PARLEY_INLINE Quad widen(HalfQuad halves, const Fp16*) {
  const UintQuad wide = __builtin_convertvector(halves, UintQuad);
  const UintQuad magnitude = wide & 0x7fffu;
  const UintQuad shifted = magnitude << 13;
  const UintQuad finite = (UintQuad)((Quad)shifted * quad(0x1p112f));
  const UintQuad special = (UintQuad)((IntQuad)magnitude >= 0x7c00);
  return (Quad)((wide & 0x8000u) << 16 | (finite & ~special) | ((shifted | 0x7f800000u) & special));
}
PARLEY_INLINE Quad widen(HalfQuad halves, const Bf16*) { return (Quad)(__builtin_convertvector(halves, UintQuad) << 16); }

PARLEY_INLINE uint32_t as_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
PARLEY_INLINE float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Round to nearest even, as base/dtype.h does.
PARLEY_INLINE void narrow(Fp16* p, float value) {
  const uint32_t bits = as_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;  // NaN
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // rounds to 65536 or more: infinity
  } else if (magnitude < 0x38800000u) {
    half = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000u;  // below 2^-14: adding 0.5 makes the FPU round to a subnormal
  } else {
    half = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  }
  p->bits = static_cast<uint16_t>(sign | half);
}
PARLEY_INLINE void narrow(Bf16* p, float value) {
  const uint32_t bits = as_bits(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  p->bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

PARLEY_INLINE Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class Half>
PARLEY_INLINE Vec load(const Half* p) {
  Vec v;
  PARLEY_EACH_QUAD {
    HalfQuad halves;
    std::memcpy(&halves, p + 4 * i, sizeof halves);
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

PARLEY_INLINE void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
template <class Half>
PARLEY_INLINE void store(Half* p, Vec v) {
  float whole[16];
  store(whole, v);
  for (int i = 0; i < 16; ++i) narrow(p + i, whole[i]);
}
template <class Number>
PARLEY_INLINE void store_partial(Number* p, Vec v, int64_t n) {
  Number whole[16];
  store(whole, v);
  for (int64_t i = 0; i < n; ++i) p[i] = whole[i];
}

PARLEY_INLINE Vec operator+(Vec a, Vec b) {
  PARLEY_EACH_QUAD a.q[i] += b.q[i];
  return a;
}
PARLEY_INLINE Vec operator-(Vec a, Vec b) {
  PARLEY_EACH_QUAD a.q[i] -= b.q[i];
  return a;
}
PARLEY_INLINE Vec operator*(Vec a, Vec b) {
  PARLEY_EACH_QUAD a.q[i] *= b.q[i];
  return a;
}
PARLEY_INLINE Vec operator/(Vec a, Vec b) {
  PARLEY_EACH_QUAD a.q[i] /= b.q[i];
  return a;
}
// SSE2 has no fused multiply-add, and a library call a number would be hundreds of times slower: two roundings there.
PARLEY_INLINE Vec fma(Vec a, Vec b, Vec c) {
#ifdef __FP_FAST_FMAF
  PARLEY_EACH_QUAD for (int j = 0; j < 4; ++j) c.q[i][j] = __builtin_fmaf(a.q[i][j], b.q[i][j], c.q[i][j]);
  return c;
#else
  PARLEY_EACH_QUAD c.q[i] += a.q[i] * b.q[i];
  return c;
#endif
}

PARLEY_INLINE Mask less(Vec a, Vec b) {
  Mask m;
  PARLEY_EACH_QUAD m.q[i] = a.q[i] < b.q[i];
  return m;
}
PARLEY_INLINE Mask less_equal(Vec a, Vec b) {
  Mask m;
  PARLEY_EACH_QUAD m.q[i] = a.q[i] <= b.q[i];
  return m;
}
PARLEY_INLINE Mask equal(Vec a, Vec b) {
  Mask m;
  PARLEY_EACH_QUAD m.q[i] = a.q[i] == b.q[i];
  return m;
}
PARLEY_INLINE Vec select(Mask mask, Vec a, Vec b) {
  PARLEY_EACH_QUAD a.q[i] = (Quad)((mask.q[i] & (IntQuad)a.q[i]) | (~mask.q[i] & (IntQuad)b.q[i]));
  return a;
}
PARLEY_INLINE uint32_t bits(Mask mask) {
  uint32_t result = 0;
  PARLEY_EACH_QUAD for (int j = 0; j < 4; ++j) result |= (mask.q[i][j] & 1u) << (4 * i + j);
  return result;
}

PARLEY_INLINE Vec max(Vec a, Vec b) { return select(less(b, a), a, b); }
PARLEY_INLINE Vec min(Vec a, Vec b) { return select(less(a, b), a, b); }
PARLEY_INLINE Vec abs(Vec a) {
  PARLEY_EACH_QUAD a.q[i] = (Quad)((IntQuad)a.q[i] & 0x7fffffff);
  return a;
}
// For |a| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
PARLEY_INLINE Vec round(Vec a) {
  PARLEY_EACH_QUAD a.q[i] = (a.q[i] + quad(0x1.8p23f)) - quad(0x1.8p23f);
  return a;
}
PARLEY_INLINE Vec pow2(Vec n) {
  PARLEY_EACH_QUAD n.q[i] = (Quad)((__builtin_convertvector(n.q[i], IntQuad) + 127) << 23);
  return n;
}

// In two steps, so that 2^n and 1 / 2^n both have a float32 and subnormal results come out right.
PARLEY_INLINE Vec scale(Vec x, Vec n) {
  const Vec half = round(n * broadcast(0.5f));
  return (x * pow2(half)) * pow2(n - half);
}

PARLEY_INLINE float sum(Vec v) {
  const Quad c = (v.q[0] + v.q[2]) + (v.q[1] + v.q[3]);
  return (c[0] + c[2]) + (c[1] + c[3]);
}
PARLEY_INLINE float largest(Vec v) {
  float result = v.q[0][0];
  PARLEY_EACH_QUAD for (int j = 0; j < 4; ++j) result = v.q[i][j] > result ? v.q[i][j] : result;
  return result;
}

#undef PARLEY_EACH_QUAD

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

// Chooses the vector type for the instruction set that this file is being compiled for (PARLEY_ISA, from binding.gyp).
//
// Every level gives, with internal linkage: Vec, 16 float32, and Mask;
//   zero() broadcast(x) load(p) load_partial(p, n) store(p, v) store_partial(p, v, n)   p: float, Fp16 or Bf16; n < 16, the rest is 0
//   + - * /  fma(a, b, c) = a b + c, one rounding where the machine has it   round(v): to the nearest integer, even at ties
//   max(a, b): b where a is NaN   scale(v, n): v 2^n for integral n in [-250, 250]   abs(v)
//   less(a, b) less_equal(a, b) equal(a, b) -> Mask   select(mask, a, b): a where true   bits(mask): one bit a lane
//   sum(v), largest(v): over the lanes, in a fixed tree
// and how kernels fill the registers:
//   kStreamTokens: up to so many tokens `linear` goes along whole panels, with kStreamSums vectors of sums; with 32 registers up to twice as many in two groups
//   kManyTokens: from so many on it widens a chunk of 16-bit weights once for all of them; its tiles are kBlockedVecs vectors of outputs wide
//   kGroupTokens: tokens of a tile, if they are more than kStreamTokens
//   kAttentionRows: most queries that share loads of keys and values   kAttentionSums: most vectors of scores that they sum at once
//   kFmaAccumulators: of the calibration
#pragma once

#include <cstdint>

#define PARLEY_JOIN_(a, b) a##b
#define PARLEY_JOIN(a, b) PARLEY_JOIN_(a, b)
#define PARLEY_LEVEL_baseline 0
#define PARLEY_LEVEL_avx2 1
#define PARLEY_LEVEL_neon 1
#define PARLEY_LEVEL_avx512 2
#define PARLEY_LEVEL_amx 3
#define PARLEY_LEVEL PARLEY_JOIN(PARLEY_LEVEL_, PARLEY_ISA)

#define PARLEY_INLINE inline __attribute__((always_inline))

namespace parley {
namespace PARLEY_ISA {
namespace {

// 16-bit numbers as they lie in memory, told apart by type.
struct Fp16 {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

#if PARLEY_LEVEL >= 2
#include "cpu/simd/avx512.h"
#elif PARLEY_LEVEL == 1 && defined(__aarch64__)
#include "cpu/simd/neon.h"
#elif PARLEY_LEVEL == 1
#include "cpu/simd/avx2.h"
#else
#include "cpu/simd/baseline.h"
#endif

#include "cpu/simd/math.h"

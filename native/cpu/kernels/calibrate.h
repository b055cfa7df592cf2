// What the machine can do at best, for the benchmark to compare with.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// Several runs of memory at once, as `linear` walks several panels: one alone keeps too few reads in flight.
float read_sum(const float* data, int64_t n) {
  constexpr int accumulators = PARLEY_LEVEL >= 2 ? 8 : PARLEY_LEVEL == 1 ? 4 : 2;
  Vec acc[accumulators];
#pragma GCC unroll 8
  for (int j = 0; j < accumulators; ++j) acc[j] = zero();
  const int64_t run = n / kReadRuns;
  for (int64_t i = 0; i < run; i += accumulators * kLanes) {
    for (int64_t r = 0; r < kReadRuns; ++r) {
      const float* numbers = data + r * run + i;
#pragma GCC unroll 8
      for (int j = 0; j < accumulators; ++j) {
        __builtin_prefetch(numbers + j * kLanes + 1024);
        acc[j] = acc[j] + load(numbers + j * kLanes);
      }
    }
  }
  Vec total = zero();
#pragma GCC unroll 8
  for (int j = 0; j < accumulators; ++j) total = total + acc[j];
  return sum(total);
}

int64_t fma_loop(int64_t iterations, float* sink) {
  // Every lane starts elsewhere, or the compiler would compute equal parts once.
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<float>(i);
  Vec acc[kFmaAccumulators];
  const Vec factor = broadcast(sink[0]);
  const Vec term = broadcast(sink[1]);
#pragma GCC unroll 24
  for (int j = 0; j < kFmaAccumulators; ++j) acc[j] = load(lanes) + broadcast(static_cast<float>(j));
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 24
    for (int j = 0; j < kFmaAccumulators; ++j) acc[j] = fma(acc[j], factor, term);
  }
  Vec total = zero();
#pragma GCC unroll 24
  for (int j = 0; j < kFmaAccumulators; ++j) total = total + acc[j];
  sink[2] = sum(total);
  return iterations * kFmaAccumulators * kLanes * 2;
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

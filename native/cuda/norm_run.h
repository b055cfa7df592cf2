// A norm of some numbers side by side, by one block: what the norms' kernel and that of an all-reduce have in common, so that both give the same bits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/numbers.h"
#include "cuda/reduce.h"

namespace parley {
namespace cuda {

struct NormRun {
  void* out;  // [width]
  DType dtype;  // of out
  const float* x;  // [width]; may be out
  const float* weight;  // [width] or null: 1
  const float* bias;  // [width] or null: 0
  int64_t width;
  float eps;
};

constexpr int kMostNormThreads = 512;

// Threads of the block of a run of so many packs: the order of its sums follows from it.
inline unsigned norm_threads(int64_t packs) {
  return static_cast<unsigned>(std::min<int64_t>((packs + 31) / 32 * 32, kMostNormThreads));
}

// Thread i takes packs i, i + threads, … and no other, so that it may have written them itself. scratch: shared memory of 32 numbers.
template <int kWidth, bool kWithMean>
__device__ void norm_run(const NormRun& call, float* scratch) {
  constexpr int kHeld = 4;  // packs that a thread keeps in registers; those of wider runs are read again
  const float count = static_cast<float>(call.width);
  const int packs = static_cast<int>(call.width) / kWidth;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  Pack<float, kWidth> held[kHeld];
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int pack = thread + j * threads;
    held[j] = pack < packs ? load_pack<kWidth>(call.x + pack * kWidth) : Pack<float, kWidth>{};
  }

  float mean = 0;
  if constexpr (kWithMean) {
    float total = 0;
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) total += held[j].numbers[i];
    }
    for (int pack = thread + kHeld * threads; pack < packs; pack += threads) {
      const Pack<float, kWidth> more = load_pack<kWidth>(call.x + pack * kWidth);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) total += more.numbers[i];
    }
    mean = reduce_block(total, scratch, 0.0f, Plus()) / count;
  }

  float squares = 0;
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    if (thread + j * threads >= packs) break;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) squares = fmaf(held[j].numbers[i] - mean, held[j].numbers[i] - mean, squares);
  }
  for (int pack = thread + kHeld * threads; pack < packs; pack += threads) {
    const Pack<float, kWidth> more = load_pack<kWidth>(call.x + pack * kWidth);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) squares = fmaf(more.numbers[i] - mean, more.numbers[i] - mean, squares);
  }
  const float factor = 1.0f / sqrtf(reduce_block(squares, scratch, 0.0f, Plus()) / count + call.eps);

  const auto write = [&](int pack, Pack<float, kWidth> numbers) {
    Pack<float, kWidth> weight, bias;
    if (call.weight) weight = load_pack<kWidth>(call.weight + pack * kWidth);
    if (call.bias) bias = load_pack<kWidth>(call.bias + pack * kWidth);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      float y = (numbers.numbers[i] - mean) * factor;
      if (call.weight && call.bias) {
        y = fmaf(y, weight.numbers[i], bias.numbers[i]);
      } else if (call.weight) {
        y *= weight.numbers[i];
      } else if (call.bias) {
        y += bias.numbers[i];
      }
      numbers.numbers[i] = y;
    }
    store_rounded<kWidth>(call.out, call.dtype, pack * kWidth, numbers);
  };
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int pack = thread + j * threads;
    if (pack < packs) write(pack, held[j]);
  }
  for (int pack = thread + kHeld * threads; pack < packs; pack += threads) {
    write(pack, load_pack<kWidth>(call.x + pack * kWidth));
  }
}

}  // namespace cuda
}  // namespace parley

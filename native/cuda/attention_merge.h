// How softmax sums over two sets of keys become one (the "safe softmax" of Milakov and Gimelshein, 2018). Exponents are of 2.
#pragma once

#include <cmath>

#include "cuda/mma.h"

namespace parley {
namespace cuda {

// all: the largest exponent of the keys so far, part: of those that join them; -inf where nothing is seen.
struct MergeFactors {
  float top;
  float all;
  float part;

  __device__ __forceinline__ MergeFactors(float all_top, float part_top) : top(fmaxf(all_top, part_top)) {
    const float base = top == -INFINITY ? 0 : top;
    all = exp2_approximate(all_top - base);
    part = exp2_approximate(part_top - base);
  }

  __device__ __forceinline__ float merged(float all_sum, float part_sum) const { return fmaf(all_sum, all, part_sum * part); }
};

}  // namespace cuda
}  // namespace parley

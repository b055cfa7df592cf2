// mix_experts on a GPU: rows sorted by expert, two linears over each expert's rows, and the sum of what they say.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/linear.h"
#include "cuda/memory.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

class Experts {
 public:
  // Works in `stream` with the kernels of `linear`, which outlives it.
  Experts(cudaStream_t stream, Linear& linear) : stream_(stream), linear_(linear) {}

  // As of Linear; what Linear needs for experts it counts itself.
  int64_t scratch_bytes(const ScratchLimits& limits) const;
  int64_t held_scratch_bytes() const { return order_.bytes() + outer_.bytes() + inner_.bytes(); }
  void reserve_scratch(const ScratchLimits& limits);

  // As mix_experts in ops.def. Nothing of it waits for the GPU: which experts are asked for is known only there.
  void mix(Matrix<float> out, Matrix<const float> x, Matrix<const int32_t> experts, Matrix<const float> shares,
           Span<const ExpertWeights> weights, Activation activation);

 private:
  cudaStream_t stream_;
  Linear& linear_;
  DeviceScratch order_;  // ExpertOrder
  DeviceScratch outer_;  // of each row what its expert makes of it
  DeviceScratch inner_;  // of each row gate and up, then the hidden layer
};

}  // namespace cuda
}  // namespace parley

// Backend::plan_attention and the op `attention` (ops/ops.def) on CUDA.
//
// Of float16 and bfloat16 keys and values: queries are rounded to their type, scores, softmax and sums are float32, and the softmax's
// weights are rounded to the keys' type before they meet the values. The bits of a row are the same alone, in a batch and in a chunk of
// any size (attention_tile.h says why).
#pragma once

#include <vector>

#include "cuda/attention_call.h"
#include "cuda/hopper.h"
#include "cuda/memory.h"
#include "cuda/step_block.h"

namespace parley {
namespace cuda {

class Attention {
 public:
  Attention(cudaStream_t stream, int64_t multiprocessors)
      : stream_(stream), multiprocessors_(multiprocessors), hopper_(runs_hopper_kernels()) {}

  // Bytes of scratch, and those held now; see Backend.
  int64_t scratch_bytes(const ScratchLimits& limits) const;
  int64_t held_bytes() const { return partials_.bytes() + arrived_.bytes(); }
  int64_t block_bytes(const ScratchLimits& limits) const;  // of a StepBlock
  void reserve(const ScratchLimits& limits);

  // Backend::begin_block and plan_attention: a step's plans become part of its block, of which their headers come first.
  void begin_block(StepBlock& block);
  void plan(const AttentionRows& rows, HeadLayout heads, const AttentionRule& rule, StepBlock& block);

  // Only starts kernels. Where every row has a sequence of its own, what it starts depends on the shapes of its arguments and on
  // rows.plan alone, so that a graph of a decode step's ops holds for all steps of the shape. Throws Error if head_dim > kMaxHeadDim.
  void run(Output out, Matrix<const float> qkv, const KvLayer& kv, const AttentionRows& rows, HeadLayout heads,
           const AttentionRule& rule);

 private:
  // Tasks that a plan starts blocks for.
  struct Planned {
    int64_t num_narrow = 0;
    int64_t num_wide = 0;
  };

  // Whether these heads have the prefill kernel for compute capability 9.0; pairs that its or the other's tiles may have, for these rows.
  bool runs_hopper(int64_t head_dim) const { return hopper_ && hopper_pairs(head_dim) > 0; }
  int64_t wide_pairs(const AttentionRows& rows, HeadLayout heads) const;

  cudaStream_t stream_;
  int64_t multiprocessors_;
  bool hopper_;
  std::vector<Planned> plans_;           // by their numbers
  StepBlock::Part<PlanHeader> headers_{};  // of each
  DeviceScratch partials_;
  DeviceScratch arrived_;
};

}  // namespace cuda
}  // namespace parley

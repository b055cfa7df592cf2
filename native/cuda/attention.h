// Backend::plan_attention and the op `attention` (ops/ops.def) on CUDA.
//
// Of float16 and bfloat16 keys and values: queries are rounded to their type, scores, softmax and sums are float32, and the softmax's
// weights are rounded to the keys' type before they meet the values. The bits of a row are the same alone, in a batch and in a chunk of
// any size (attention_tile.h says why).
#pragma once

#include <deque>
#include <functional>
#include <vector>

#include "cuda/attention_call.h"
#include "cuda/memory.h"

namespace parley {
namespace cuda {

class Attention {
 public:
  Attention(cudaStream_t stream, int64_t multiprocessors) : stream_(stream), multiprocessors_(multiprocessors) {}

  // Bytes of scratch, and those held now; see Backend.
  int64_t scratch_bytes(const ScratchLimits& limits) const;
  int64_t held_bytes() const;
  void reserve(const ScratchLimits& limits);

  // Backend::plan_attention. upload: Backend::upload.
  using Upload = std::function<void(void* to, const void* from, int64_t bytes)>;
  void plan(const AttentionRows& rows, HeadLayout heads, const AttentionRule& rule, const Upload& upload);

  // Only starts kernels. Where every row has a sequence of its own, what it starts depends on the shapes of its arguments and on
  // rows.plan alone, so that a graph of a decode step's ops holds for all steps of the shape. Throws Error if head_dim > kMaxHeadDim.
  void run(Matrix<float> out, Matrix<const float> qkv, const KvLayer& kv, const AttentionRows& rows, HeadLayout heads,
           const AttentionRule& rule);

 private:
  // What a plan has for one step.
  struct Planned {
    DeviceScratch memory;  // PlanHeader, tasks
    int64_t num_narrow = 0;
    int64_t num_wide = 0;
  };

  struct Sizes {
    int64_t tasks;     // of a plan
    int64_t partials;  // float32 numbers
    int64_t arrived;
  };
  static Sizes sizes(const ScratchLimits& limits);
  void reserve(const Sizes& sizes);
  Planned& plan_of(const AttentionRows& rows);

  cudaStream_t stream_;
  int64_t multiprocessors_;
  std::deque<Planned> plans_;  // by their numbers
  DeviceScratch partials_;
  DeviceScratch arrived_;
  std::vector<AttentionTask> host_;  // a plan on its way to the device
};

}  // namespace cuda
}  // namespace parley

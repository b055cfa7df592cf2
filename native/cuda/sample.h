// Tokens from logits (ops/ops.def): by the rules of cpu/kernels/sample.h, from the same logits the same tokens.
#pragma once

#include <cuda_runtime.h>

#include <functional>

#include "cuda/idle_clock.h"
#include "cuda/memory.h"
#include "cuda/sample_plan.h"
#include "cuda/step_block.h"
#include "cuda/stream_end.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

struct SampleMemory;
struct SampleResult;

class Sampler {
 public:
  // give_up_after_ms: as in StreamEnd
  Sampler(cudaStream_t stream, IdleClock& idle, int64_t give_up_after_ms) : stream_(stream), idle_(idle), end_(stream, give_up_after_ms) {}

  int64_t scratch_bytes(const ScratchLimits& limits) const;
  int64_t held_bytes() const { return device_.bytes(); }
  int64_t block_bytes(const ScratchLimits& limits) const;  // of a StepBlock
  void reserve(const ScratchLimits& limits);

  // Backend::begin_block: what was planned is forgotten.
  void begin_block();

  // Backend::plan_choices. Rows whose lists are longer than what is reserved are sent when they are sampled or scored.
  void plan(Span<const SampleRow> samples, Span<const ScoreRow> scores, StepBlock& block);

  // Both wait for the results. Where the GPU has no room for the rows' lists of ids, they are taken a few at a time; a row that has no room
  // alone has no token.
  void sample(Matrix<float> logits, Span<const SampleRow> rows, int64_t num_sampled_ids, Span<int32_t> tokens, Span<float> logprobs,
              Span<int32_t> ranks, Matrix<int32_t> top_tokens, Matrix<float> top_logprobs);
  void score(Matrix<float> logits, Span<const ScoreRow> rows, Span<float> logprobs, Span<int32_t> ranks, Matrix<int32_t> top_tokens,
             Matrix<float> top_logprobs);

 private:
  void sample_together(Matrix<float> logits, Span<const SampleRow> rows, int64_t num_sampled_ids, Span<int32_t> tokens,
                       Span<float> logprobs, Span<int32_t> ranks, Matrix<int32_t> top_tokens, Matrix<float> top_logprobs);

  // Sends the rows if they are not among those of `planned`, whose plans begin at first_plan; calls start, and waits for the results, which
  // stay until the next call.
  template <class Row>
  const SampleResult* run(Span<const Row> rows, Span<const Row> planned, int64_t first_plan, Matrix<float> logits,
                          const std::function<void(const SampleMemory&)>& start);

  // What the step's block has, in the device's memory.
  struct Planned {
    const SamplePlan* plans;
    const int32_t* numbers;
    int64_t num_numbers;
  };

  cudaStream_t stream_;
  IdleClock& idle_;
  StreamEnd end_;
  Planned planned_{};
  Span<const SampleRow> planned_samples_;
  Span<const ScoreRow> planned_scores_;
  int64_t most_planned_ = 0;  // numbers of lists
  SamplePlans rows_;          // on their way to the device
  DeviceScratch device_;      // of a call: its rows and lists where they were not planned, scratch, results
  PinnedScratch upload_;
  PinnedScratch download_;
};

}  // namespace cuda
}  // namespace parley

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

// Where a call writes in the host's memory.
struct Choices {
  Span<int32_t> tokens;
  Span<float> logprobs;
  Span<int32_t> ranks;
  Matrix<int32_t> top_tokens;
  Matrix<float> top_logprobs;
};

class Sampler {
 public:
  // give_up_after_ms: as in StreamEnd
  Sampler(cudaStream_t stream, IdleClock& idle, int64_t give_up_after_ms)
      : stream_(stream),
        idle_(idle),
        even_(stream, give_up_after_ms),
        odd_(stream, give_up_after_ms),
        end_(stream, give_up_after_ms) {}

  int64_t scratch_bytes(const ScratchLimits& limits) const;
  int64_t held_bytes() const { return device_.bytes(); }
  int64_t block_bytes(const ScratchLimits& limits) const;  // of a StepBlock
  void reserve(const ScratchLimits& limits);

  // Backend::begin_block: what was planned is forgotten.
  void begin_block();

  // Backend::plan_choices. Rows whose lists are longer than what is reserved are sent when they are sampled or scored.
  void plan(Span<const SampleRow> samples, Span<const ScoreRow> scores, StepBlock& block);

  // Begins to choose; wait() ends it. Rows that were not planned are waited for at once; where the GPU has no room for their lists of ids,
  // they are taken a few at a time; a row that has no room alone has no token.
  void sample(Matrix<float> logits, float* chosen, Span<const SampleRow> rows, int64_t num_sampled_ids, const Choices& choices);

  // Backend::wait_for_choices and forget_choices
  void wait();
  void forget();

  // Waits for the results.
  void score(Matrix<float> logits, Span<const ScoreRow> rows, const Choices& choices);

 private:
  // A call of sample() that is under way.
  struct Call {
    Call(cudaStream_t stream, int64_t give_up_after_ms) : end(stream, give_up_after_ms) {}

    StreamEnd end;
    PinnedScratch results;
    Span<const SampleRow> rows;  // none: its results have been told
    Choices choices;
  };

  // What the step's block has, in the device's memory.
  struct Planned {
    const SamplePlan* plans;
    const int32_t* numbers;
    int64_t num_numbers;
  };

  Call& call_of(int64_t number) { return number % 2 == 0 ? even_ : odd_; }
  bool is_planned(Span<const SampleRow> rows) const;
  bool is_planned(Span<const ScoreRow> rows) const;
  void sample_at_once(Matrix<float> logits, float* chosen, Span<const SampleRow> rows, int64_t num_sampled_ids, const Choices& choices);
  SampleMemory planned(int64_t first_plan, int64_t num_rows, int64_t vocab);
  template <class Row>
  SampleMemory send(Span<const Row> rows, int64_t vocab);
  void start_sampling(SampleMemory memory, Matrix<float> logits, float* chosen, int64_t num_sampled_ids);
  void bring(const SampleMemory& memory, int64_t num_rows, SampleResult* results, StreamEnd& end);
  void wait_for(StreamEnd& end);

  cudaStream_t stream_;
  IdleClock& idle_;
  Call even_, odd_;  // in turn
  int64_t num_begun_ = 0;   // of calls
  int64_t num_waited_ = 0;  // for
  StreamEnd end_;           // of what is waited for at once
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

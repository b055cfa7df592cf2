// Tokens from logits (ops/ops.def): by the rules of cpu/kernels/sample.h, from the same logits the same tokens.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <vector>

#include "cuda/memory.h"
#include "cuda/stream_end.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

struct SamplePlan;
struct SampleMemory;
struct SampleResult;

class Sampler {
 public:
  explicit Sampler(cudaStream_t stream) : stream_(stream), end_(stream) {}

  int64_t scratch_bytes(const ScratchLimits& limits) const;
  int64_t held_bytes() const { return device_.bytes(); }
  void reserve(const ScratchLimits& limits);

  // Both wait for the results. Where the GPU has no room for the rows' lists of ids, they are taken a few at a time; a row that has no room
  // alone has no token.
  void sample(Matrix<float> logits, Span<const SampleRow> rows, int64_t num_sampled_ids, Span<int32_t> tokens, Span<float> logprobs,
              Span<int32_t> ranks, Matrix<int32_t> top_tokens, Matrix<float> top_logprobs);
  void score(Matrix<float> logits, Span<const ScoreRow> rows, Span<float> logprobs, Span<int32_t> ranks, Matrix<int32_t> top_tokens,
             Matrix<float> top_logprobs);

 private:
  void sample_together(Matrix<float> logits, Span<const SampleRow> rows, int64_t num_sampled_ids, Span<int32_t> tokens,
                       Span<float> logprobs, Span<int32_t> ranks, Matrix<int32_t> top_tokens, Matrix<float> top_logprobs);

  // Uploads, calls start, and waits for the results, which stay until the next call.
  const SampleResult* run(const std::vector<SamplePlan>& plans, const std::vector<int32_t>& numbers, Matrix<float> logits,
                          bool with_allowed, const std::function<void(const SampleMemory&)>& start);

  cudaStream_t stream_;
  StreamEnd end_;
  DeviceScratch device_;  // of a call: its rows and lists as they were uploaded, scratch, results
  PinnedScratch upload_;
  PinnedScratch download_;
};

}  // namespace cuda
}  // namespace parley

// The encoder of encoder-decoders (T5 family): a whole prompt in, the keys and values that the decoder's cross-attention reads out.
//
// Every token sees every other, so a prompt cannot be cut into chunks of tokens as a decoder's can. It can be cut by blocks: a long
// prompt takes several steps, some blocks in each, and in between its hidden states wait here. One prompt at a time can be so cut.
#pragma once

#include <vector>

#include "model/arena.h"
#include "model/block.h"
#include "model/kv_cache.h"
#include "model/step.h"
#include "model/weights.h"

namespace parley {

class Encoder {
 public:
  // dtype: of the weights. collective: null if the rank is the only one.
  Encoder(const RankModel& model, Collective* collective, const Weights& weights, const KvCache& kv_cache, Backend& backend, DType dtype,
          const StackLimits& limits);

  // Memory of the matrices below and of kv_.
  static int64_t workspace_bytes(const RankModel& model, DType dtype, const StackLimits& limits);

  // Numbers of a job's lists, and parts of a prompt that have a plan of attention each; at most.
  static int64_t list_numbers(const StackLimits& limits);
  static int64_t num_plans(const StackLimits& limits);

  // Runs the job's blocks. Behind the last one, writes keys and values of all the decoder's blocks into the job's pages.
  void run(const EncoderJob& job);

 private:
  static std::vector<MatrixPlan<Encoder>> plan(const RankModel& model, const StackLimits& limits);
  static int64_t kv_bytes(const ModelSpec& spec, DType dtype, const StackLimits& limits);
  void write_lists(const EncoderJob& job);
  void embed();
  Matrix<float> part(int64_t count) const;
  AttentionRows attention_rows(int64_t first, int64_t count) const;
  AttentionRule rule() const;
  void run_block(const LayerWeights& layer);
  void write_cross_kv();

  const ModelSpec& spec_;  // the rank's own
  Collective* collective_;
  const Weights& weights_;
  const KvCache& kv_cache_;
  Backend& backend_;
  HeadLayout heads_;
  int64_t first_token_;  // the first one that the rank has
  int64_t max_rows_;
  int64_t num_tokens_ = 0;  // of the prompt whose hidden states are in hidden_
  Arena workspace_;
  KvLayer kv_;                           // of the block that runs
  std::vector<int32_t> host_positions_;  // as positions_
  std::vector<int32_t> host_sequences_;  // as sequences_
  Span<const int32_t> tokens_;           // of the job: [its prompt] where it begins with the first block
  Span<const int32_t> slots_;            // of the prompt's tokens in its pages, where it ends with the last one
  // Workspace. P is limits.positions, T max_rows_.
  Matrix<int32_t> positions_;  // [1, P] 0, 1, 2 ...: also the slots of kv_, and the page table
  Matrix<int32_t> sequences_;  // [1, T] 0, 0, 0 ...
  Matrix<float> hidden_;       // [P, H] the residual stream
  Matrix<float> qkv_;          // [P, Q + 2 KV]
  Matrix<float> part_;         // [T, H] the rank's summand of an all-reduce
  Matrix<float> normed_;       // [T, H]
  Matrix<float> attention_;    // [T, Q]
  Matrix<float> gate_up_;      // [T, 2 F]
  Matrix<float> mlp_;          // [T, F]
  Matrix<float> bias_;         // [num_heads, distances]; see relative_bias.h
};

}  // namespace parley

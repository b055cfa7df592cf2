// The one forward pass: a step's tokens in, hidden states out. Every decoder family is this code with another ModelSpec.
#pragma once

#include <vector>

#include "model/arena.h"
#include "model/block.h"
#include "model/kv_cache.h"
#include "model/step_lists.h"
#include "model/weights.h"

namespace parley {

class Decoder {
 public:
  // dtype: of the weights. collective: null if the rank is the only one.
  Decoder(const RankModel& model, Collective* collective, const Weights& weights, const KvCache& kv_cache, Backend& backend, DType dtype,
          const StackLimits& limits);

  // Memory of the matrices below.
  static int64_t workspace_bytes(const RankModel& model, DType dtype, const StackLimits& limits, const Backend& backend);

  // Plans of attention that a step has: one for each window of its layers, and that of cross-attention.
  static int64_t num_plans(const ModelSpec& spec);

  // Runs all the blocks over the step's rows and writes their keys and values.
  void forward(const Step& step);

  // Logits [own_rows(num_samples), vocab] of the rows of forward()'s step that choose a token. Ops may write into them.
  Matrix<float> sample_logits();

  // Where sample() leaves the tokens that it chooses from them. [own_samples().count]
  Span<float> choices() const;

  // Behind every rank's sample(), and before the next forward() if it has tokens that this step chose: all ranks get the tokens of all.
  void share_choices();

  // The lists of the last forward()'s step.
  const StepLists& lists() const { return lists_; }

  // Hidden states [rows.size, hidden] behind the final norm, of some of its rows. Valid until the next call.
  Matrix<float> final_hidden(Span<const int32_t> rows);

  // Logits [own_rows(rows.size), vocab] of the same: the ranks share the rows out between them. The caller may let ops write into them.
  Matrix<float> unembed(Span<const int32_t> rows);

  // Which rows of forward()'s step that choose a token this rank has the logits of.
  Range own_samples() const { return samples_of(model_.rank); }

  // Which of `count` rows of logits are this rank's.
  Range own_rows(int64_t count) const { return share_of(count, model_.rank, model_.num_ranks()); }

  // The residual stream [T, H] behind the last forward().
  Matrix<const float> hidden() const { return {hidden_.data, num_rows_, hidden_.cols, hidden_.stride}; }

  // Rows that the two take at a time.
  int64_t max_logit_rows() const { return logits_.rows; }

 private:
  static std::vector<MatrixPlan<Decoder>> plan(const RankModel& model, DType dtype, const StackLimits& limits, const Backend& backend);
  StepShape padded(const StepShape& shape) const;
  Range samples_of(int64_t rank) const;
  void plan_norms();
  void plan(const Step& step);
  void run_blocks();
  void embed();
  void run_sequential(int64_t layer);
  void run_parallel(int64_t layer);
  Product qkv_product(const LayerWeights& layer, Input input) const;
  void attend(int64_t layer);
  void attend_encoder(int64_t layer, Input input);
  void add_experts(const LayerWeights& layer, Input input, const std::vector<RowNorm>& norms);
  Matrix<float> part(int64_t cols) const;
  void add_parts(const LayerWeights& layer, Span<const float> bias, const std::vector<RowNorm>& norms);
  RowNorm row_norm(Output out, const NormWeights& weights) const;
  void norm(Matrix<float> out, Matrix<const float> x, const NormWeights& weights);
  void norm_heads(Matrix<float> heads, const NormWeights& weights, const std::vector<Range>& columns);
  void add_branch(Input x, const LinearWeights& out, const NormWeights& output_norm, const std::vector<RowNorm>& norms);

  // Norms of the residual stream, each as soon as it has what is normalised.
  struct LayerNorms {
    std::vector<RowNorm> behind_attention;
    std::vector<RowNorm> behind_encoder;
    std::vector<RowNorm> behind_mlp;  // with parallel branches: behind both
  };

  const RankModel& model_;
  const ModelSpec& spec_;  // the rank's own
  Collective* collective_;
  const Weights& weights_;
  const KvCache& kv_cache_;
  Backend& backend_;
  HeadLayout heads_;
  float embedding_scale_;
  std::vector<AttentionRule> rules_;                // of each layer
  AttentionRule encoder_rule_;                      // of cross-attention
  std::vector<RowNorm> norms_behind_embedding_;
  std::vector<LayerNorms> norms_;                   // of each layer
  std::vector<Range> query_columns_;                // of each rank, in a row of all queries
  std::vector<Range> key_columns_;
  std::vector<Range> vocab_columns_;
  std::vector<Range> choice_columns_;               // of each rank, in what all chose
  std::vector<int64_t> plans_;                      // of each layer: the attention plan of its window
  int64_t cross_plan_ = 0;                          // that of cross-attention
  std::vector<Matrix<const float>> layer_cos_sin_;  // of each layer: cos_sin_ or local_cos_sin_
  StepLists lists_;
  Arena workspace_;
  StepShape max_shape_;        // that there is room for
  int64_t num_rows_ = 0;       // of the step, filled up
  int64_t num_samples_ = 0;    // of its rows that choose a token
  bool has_logits_ = false;    // forward() computed theirs too
  // Workspace. T is limits.rows, R logit_rows, P positions; a matrix that the model has no use for has no rows.
  Matrix<float> hidden_;         // [T, H] the residual stream; every rank has all of it
  Output normed_;                // [T, H] what a branch reads
  Output mlp_normed_;            // [T, H] what the branch beside the attention reads, if it has a norm of its own
  Matrix<float> branch_;         // [T, H] what is normalised before it is added, and position embeddings
  Matrix<float> embedded_;       // [T, E]
  Matrix<float> part_;           // [T, H or E] the rank's summand of an all-reduce
  Matrix<float> apart_;          // [T, H] the attention's, where it is not in the same one as the parallel branch's
  Matrix<float> whole_heads_;    // [T, all ranks' Q or KV] for norms of the whole row
  Matrix<float> qkv_;            // [T, Q + 2 KV]
  Output attention_;             // [T, Q]
  Matrix<float> gate_up_;        // [T, 2 F]
  Output mlp_;                   // [T, F]
  Matrix<float> router_;         // [T, num_experts] logits
  Matrix<float> shares_;         // [T, num_experts_per_tok] of a token in its experts
  Matrix<int32_t> experts_;      // the experts, as shares_
  Matrix<float> gathered_;       // [R, H]
  Matrix<float> projected_;      // [R, E]
  Matrix<float> logits_;         // [R, V]
  Matrix<float> whole_logits_;   // [the rank's share of R, all ranks' V]
  Matrix<float> chosen_;         // [1, R] tokens that the last step chose
  Matrix<float> own_chosen_;     // [1, the rank's share of R]
  Matrix<float> cos_sin_;        // [P, rope_dims]: cosines, then sines
  Matrix<float> local_cos_sin_;  // [P, rope_dims] of layers with a window
  Matrix<float> position_bias_;  // [num_heads, P]; see AttentionRule
  Matrix<float> relative_bias_;  // [num_heads, distances]; see relative_bias.h
};

}  // namespace parley

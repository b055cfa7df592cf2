// What ops speak besides plain views.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/dtype.h"
#include "base/tensor.h"
#include "contract.h"

namespace parley {

// Tokens in a KV page: one AVX-512 register of keys.
constexpr int64_t kPageSize = 16;

// Most log-probabilities a row can ask for; the range of SamplingParams::num_logprobs.
constexpr int64_t kMaxLogprobs = 32;

// Most matrices that `sum` adds up, and so most ranks of a model.
constexpr int64_t kMaxParts = 64;

// A token that is not known yet when a step is begun: kChosenToken + r is what sample() chose for row r of the step before (ops.def, embed).
constexpr int32_t kChosenToken = INT32_MIN;
constexpr bool is_chosen(int32_t token) { return token < kChosenToken / 2; }

// A matrix W [rows, cols] in the backend's own layout, made by Backend::pack_rows. Does not own its memory.
struct PackedWeight {
  void* data = nullptr;
  DType dtype = DType::float32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t parts = 1;  // equal parts into which the columns of a matrix were cut, of which these are one; each rank has another
};

// Most products of one pass of `linear`.
constexpr int64_t kMaxProducts = 4;

// What each rank has one of, [T, n], whose sum is wanted, and of which nothing may be left behind the call; and what is added to that sum, [n] or
// empty, the same on all ranks.
struct Summand {
  Matrix<float> part;
  Span<const float> bias;
};

// Most summands of an all-reduce.
constexpr int64_t kMaxSummands = 2;

// Rows that go into `linear`: written in float32, or rounded once by who makes them to the type that Backend::input_type() names.
using Output = TypedMatrix<void>;
using Input = TypedMatrix<const void>;

// A norm of whole rows, as layer_norm or rms_norm makes it, and where it goes.
struct RowNorm {
  Norm kind = Norm::layer;
  Output out;  // [at least T, n]; may be the rows themselves
  Span<const float> weight;
  Span<const float> bias;  // of layer
  float eps = 0;
};

// Most norms of an all-reduce's rows.
constexpr int64_t kMaxNorms = 2;

// Rows first_row.. of `weight`, stored in the host's memory: row i starts at data + i * stride_bytes and has weight.cols numbers of dtype,
// at any alignment.
struct StoredRows {
  PackedWeight weight;
  int64_t first_row = 0;
  int64_t num_rows = 0;
  const void* data = nullptr;
  DType dtype = DType::float32;
  int64_t stride_bytes = 0;
};

// One expert, a gated MLP: W_down (activation(W_gate x) * W_up x), without biases. F is the width of its hidden layer.
struct ExpertWeights {
  PackedWeight gate_up;  // [2 F, H]: gate, then up
  PackedWeight down;     // [H, F]
};

// The heads of one qkv row: queries, then keys, then values, each [heads, head_dim].
struct HeadLayout {
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t rope_dims = 0;

  constexpr int64_t query_size() const { return num_heads * head_dim; }
  constexpr int64_t kv_size() const { return num_kv_heads * head_dim; }
  constexpr int64_t qkv_size() const { return query_size() + 2 * kv_size(); }
};

// One layer's pages, in the backend's own layout. On the CPU: keys [num_pages, num_kv_heads, head_dim, kPageSize], 16 keys side by side,
// so that scores need no horizontal sum; values [num_pages, num_kv_heads, kPageSize, head_dim]. On CUDA: cuda/kv_layout.h.
struct KvLayer {
  void* keys = nullptr;
  void* values = nullptr;
  DType dtype = DType::float32;
  int64_t num_pages = 0;
};

// The rows of an attention call. Rows of one sequence stand together in order of position.
struct AttentionRows {
  Span<const int32_t> positions;             // [T]
  Span<const int32_t> sequences;             // [T] row of page_table
  Matrix<const int32_t> page_table;          // [S, max_pages]
  const int32_t* host_positions = nullptr;   // [T] the same numbers in the host's memory, which plan_attention may read
  const int32_t* host_sequences = nullptr;   // [T]
  int64_t plan = 0;                          // number, from 0 on, of the plan that these calls have
};

// Lists of numbers that are others in every step: where the caller writes them, and where ops find them.
struct ListBlock {
  int32_t* host = nullptr;
  const int32_t* ops = nullptr;
};

// The shape of a step in which each row is the last one of a sequence of its own and chooses a token.
struct StepShape {
  int64_t rows = 0;
  int64_t max_pages = 0;
  int64_t max_encoder_pages = 0;
};

// What attention does with the product of a query and a key.
struct AttentionRule {
  float scale = 1;    // score = product * scale
  float softcap = 0;  // then, if not 0: score = softcap * tanh(score / softcap)
  // Then, if not empty: score += bias[head, cols - 1 - distance], distance = query's position - key's; keys farther away than the table
  // reaches take column 0. Or, if bias_by_key, score += bias[head, key's position]. [num_heads, distances or positions]
  Matrix<const float> bias;
  bool bias_by_key = false;
  int64_t window = 0;  // keys that a query sees, its own included; 0: all
  // Not 0: nothing is causal. Every query sees the keys 0..num_keys - 1, and the middle column of `bias` is distance 0, so that keys
  // behind a query have the columns to its right.
  int64_t num_keys = 0;
};

// Columns in ScratchLimits::pass_cols come in so many.
constexpr int64_t kPassCols = 64;

// The largest calls of ops that a model makes.
struct ScratchLimits {
  int64_t rows;           // of a matrix that goes into `linear`
  int64_t cols;           // the same
  int64_t activated_cols;  // of what `linear` activates
  int64_t pass_cols;      // of all that go into one pass together, each rounded up to a multiple of kPassCols
  int64_t num_experts;    // of a mixture
  int64_t expert_rows;    // pairs of a token and one of its experts
  int64_t expert_hidden;  // width of what goes into an expert
  int64_t expert_size;    // width of an expert's hidden layer
  int64_t context;        // keys that a row attends to
  int64_t sequences;      // that a step's rows belong to
  int64_t num_heads;
  int64_t head_dim;
  int64_t vocab;
  int64_t threads;        // that compute
  int64_t list_numbers;   // of a block's lists
  int64_t plans;          // of attention, in a block
};

// What `linear` does with y = x W^T + bias: out = y, out = activation(y), or out += y.
enum class Epilogue : int32_t { store, gelu, gelu_tanh, relu, accumulate, silu };

// One product of a pass: y = x W^T + bias, then the epilogue.
struct Product {
  Output out;              // [T, rows]; of another type than float32 only behind an activation
  Input x;                 // [T, cols]; float32 or the weight's type
  PackedWeight weight;     // [rows, cols]
  Span<const float> bias;  // [rows] or empty
  Epilogue epilogue;
};

// How often a token was generated, for the penalties; 0: it is only in the prompt.
struct TokenCount {
  int32_t token;
  int32_t count;
};

// Columns of top_* that a row with these parameters fills.
inline int64_t num_top(const SamplingParams& params) {
  return params.logprob_token_ids.empty() ? std::max<int64_t>(params.num_logprobs, 0)
                                          : static_cast<int64_t>(params.logprob_token_ids.size());
}

// A token whose log-probability a row of logits is asked for, and how many of the most probable ones beside it.
struct ScoreRow {
  int32_t token;
  int32_t num_top;
};

// How to choose one row's token.
struct SampleRow {
  const SamplingParams* params = nullptr;
  Span<const TokenCount> counts;    // distinct tokens so far; kept only where a penalty needs them
  Span<const int32_t> forbidden;    // ids that may not be chosen now
  int64_t position = 0;             // index of the token among the completion's, the counter of the random numbers
};

}  // namespace parley

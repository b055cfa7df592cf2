// The table of CPU kernels, one for each instruction set.
//
// kernels/all.cc is compiled once per instruction set with its own compiler flags. So that the linker can never pick a function
// that was compiled for AVX-512 to serve a machine without it, nothing in kernels/ or simd/ has external linkage but the tables
// below, and this header uses no type with inline members: only numbers, pointers and plain structs.
#pragma once

#include <cstdint>

namespace parley {

// Same order as DType in contract.def; cpu_backend.cc checks it.
enum class NumberType : int32_t { float32, float16, bfloat16 };

// Outputs of a matrix that stand together in a packed weight: [ceil(rows / 32)][cols][32].
constexpr int64_t kPanelRows = 32;

// Numbers in the kernels' vector type, on every instruction set.
constexpr int64_t kLanes = 16;

// Most panels that `linear` walks at once: one run of memory after the other keeps too few reads in flight.
constexpr int64_t kStreamPanels = 4;

// Tokens in a KV page as the kernels see it; cpu_backend.cc checks that it is kPageSize.
constexpr int64_t kPageTokens = 16;

// How `linear` takes its tokens.
struct LinearPlan {
  int64_t num_groups;    // of at most as many tokens as a register tile is high
  int64_t num_blocks;    // of groups, worked on one after the other
  int64_t packed_bytes;  // of the tokens laid out; 0: they are read as they are
  int64_t piece_tasks;   // what a thread takes at a time: a multiple of the panels that are walked at once
};

// One call of `linear`, shared by all threads. The work is cut into tasks [token block][panel].
struct LinearCall {
  const void* weight;     // packed panels
  NumberType dtype;       // of the weight
  int64_t rows;           // outputs
  int64_t cols;           // inputs
  const void* tokens;     // laid out by pack_tokens
  int64_t num_tokens;
  int64_t num_groups;     // token group g has the tokens num_tokens * g / num_groups up to those of g + 1
  int64_t num_blocks;     // block b has the groups num_groups * b / num_blocks up to those of b + 1
  int64_t piece_tasks;    // LinearPlan's
  const float* bias;      // [rows] or null
  float* out;
  int64_t out_stride;
  int32_t epilogue;       // value of Epilogue
};

// One call of `attention`, shared by all threads. The work is cut into tasks [row group][key/value head].
struct AttentionCall {
  float* out;
  int64_t out_stride;
  const float* qkv;
  int64_t qkv_stride;
  int64_t num_rows;
  const void* keys;
  const void* values;
  NumberType dtype;  // of keys and values
  const int32_t* positions;
  const int32_t* sequences;
  const int32_t* page_table;
  int64_t page_table_stride;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  float scale;
  float softcap;      // 0: none
  const float* bias;  // [num_heads][bias_cols] or null; see AttentionRule
  int64_t bias_stride;
  int64_t bias_cols;
  bool bias_by_key;
  int64_t window;     // 0: none
  int64_t num_keys;   // 0: causal
};

// One row of `sample`; the meaning of the fields is SamplingParams' and SampleRow's.
struct SampleCall {
  float* logits;  // [vocab]
  int64_t vocab;
  int64_t num_sampled_ids;
  double temperature;
  double top_p;
  int64_t top_k;
  double min_p;
  float presence_penalty;
  float frequency_penalty;
  float repetition_penalty;
  int64_t seed;
  int64_t choice;
  int64_t position;
  int64_t num_logprobs;
  const int32_t* bias_ids;
  const float* bias_values;
  int64_t num_bias;
  const int32_t* counts;  // [num_counts][2]: token, count
  int64_t num_counts;
  const int32_t* allowed;  // none: all ids
  int64_t num_allowed;
  const int32_t* forbidden;
  int64_t num_forbidden;
  const int32_t* reported;  // logprob_token_ids
  int64_t num_reported;
  // Scratch of this thread.
  float* raw;           // [vocab]
  float* weights;       // [vocab]
  int32_t* candidates;  // [vocab]
  // Results.
  int32_t token;
  float logprob;
  int32_t rank;
  int32_t* top_tokens;  // [num_reported or num_logprobs]
  float* top_logprobs;
};

// One row of `score`.
struct ScoreCall {
  float* logits;  // [vocab]
  int64_t vocab;
  int32_t token;
  int64_t num_top;
  // Results.
  float logprob;
  int32_t rank;
  int32_t* top_tokens;  // [num_top]
  float* top_logprobs;
};

// Of read_sum: runs of memory that it walks at once, and a multiple of what it takes of all of them in one go.
constexpr int64_t kReadRuns = 4;
constexpr int64_t kReadStep = kReadRuns * 8 * kLanes;

struct Kernels {
  // The plan for weights of `dtype`.
  LinearPlan (*plan_linear)(NumberType dtype, int64_t num_tokens, int64_t cols);
  // Most bytes that num_tokens tokens take laid out, in one call or many.
  int64_t (*packed_tokens_bytes)(int64_t num_tokens, int64_t cols);
  // Lays out the columns [first_col, last_col) of all tokens; first_col is a multiple of 64.
  void (*pack_tokens)(void* packed, NumberType dtype, const float* x, int64_t x_stride, int64_t num_tokens, int64_t num_groups,
                      int64_t cols, int64_t first_col, int64_t last_col);
  // float32 scratch that a thread needs for `linear`.
  int64_t linear_scratch;
  // Runs the tasks [first_task, last_task). scratch: linear_scratch numbers, 64-byte aligned.
  void (*linear)(const LinearCall& call, int64_t first_task, int64_t last_task, float* scratch);
  // Writes rows [first_row, first_row + num_rows) of a panel, all in one panel: panel + first_row of the 32.
  void (*pack_panel)(void* panel, NumberType dtype, int64_t cols, int64_t first_row, int64_t num_rows, const void* stored,
                     NumberType stored_dtype, int64_t stored_stride_bytes);
  // One row of an embedding table.
  void (*embed)(float* out, const void* table, NumberType dtype, int64_t cols, int64_t row);
  // One run of n numbers; weight and bias may be null.
  void (*layer_norm)(float* out, const float* x, const float* weight, const float* bias, int64_t n, float eps);
  void (*rms_norm)(float* out, const float* x, const float* weight, int64_t n, float eps);
  // One row: out = the parts added up as ops.def says, + bias unless null, or out += that; x = cap tanh(x / cap); out [n] = activation(x [0, n)) * x [n, 2 n).
  void (*sum)(float* out, const float* const* parts, int64_t num_parts, const float* bias, int64_t n, bool accumulate);
  void (*softcap)(float* x, int64_t n, float cap);
  void (*gate)(float* out, const float* x, int64_t n, int32_t activation);
  // One token: its num_chosen experts and its shares of them. Then out [n] += sum over j of shares[j] * row rows[j] of x.
  void (*route)(int32_t* experts, float* shares, const float* logits, int64_t num_experts, int64_t num_chosen, bool normalise);
  void (*add_shares)(float* out, const float* x, int64_t x_stride, const int32_t* rows, const float* shares, int64_t num_rows, int64_t n);
  // Rotates num_heads heads, head_dim apart, by the cosines and sines of one position.
  void (*rope)(float* heads, int64_t num_heads, int64_t head_dim, const float* cos_sin, int64_t half, bool interleaved);
  // Writes the key and value heads of one row into a slot.
  void (*write_kv)(void* keys, void* values, NumberType dtype, const float* key, const float* value, int64_t num_kv_heads,
                   int64_t head_dim, int64_t slot);
  // Floats of scratch that one thread needs for rows that attend to at most `context` keys.
  int64_t (*attention_scratch)(const AttentionCall& call, int64_t context);
  // Runs thread `thread`'s share.
  void (*attention)(const AttentionCall& call, int64_t thread, int64_t num_threads, float* scratch);
  void (*sample)(SampleCall& call);
  void (*score)(ScoreCall& call);

  // For calibration: the sum of n numbers (n a multiple of kReadStep, 64-byte aligned), and a loop of FMAs in registers that returns how
  // many floating-point operations it did (an FMA is two).
  float (*read_sum)(const float* data, int64_t n);
  int64_t (*fma_loop)(int64_t iterations, float* sink);
};

namespace baseline {
extern const Kernels kKernels;
}
namespace neon {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
namespace amx {
extern const Kernels kKernels;
}

}  // namespace parley

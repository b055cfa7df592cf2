// What the attention kernels get, and who starts them.
#pragma once

#include "cuda/attention_plan.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {

// A plan in the device's memory. It has the same place in every step, its tasks have not.
struct PlanHeader {
  const AttentionTask* tasks;  // the narrow ones, then the wide ones
  int32_t num_narrow;
  int32_t num_wide;
};

struct AttentionCall {
  Output out;               // [T, num_heads head_dim]; float32 or of the keys' type
  Matrix<const float> qkv;  // [T, (num_heads + 2 num_kv_heads) head_dim]
  const void* keys;
  const void* values;
  const int32_t* positions;  // [T]
  const int32_t* sequences;  // [T]
  Matrix<const int32_t> page_table;
  int32_t num_kv_heads;
  int32_t heads_per_kv;
  int32_t head_dim;
  bool whole_pieces;  // 8 numbers of a head can be read and written at once, wherever they are
  float scale;
  float softcap;
  Matrix<const float> bias;
  bool bias_by_key;
  int32_t window;
  int32_t num_keys;

  const PlanHeader* plan;
  float* partials;       // [num_partials, num_kv_heads, partial_stride]: largest exponent, sum of the weights, 2 unused, weighted values
  int64_t partial_stride;
  unsigned* arrived;     // [num_split_tiles, num_kv_heads]: splits that are done; 0 before and after every call
};

// Largest exponent, sum of the weights, and two that keep what follows at a multiple of 16 bytes.
constexpr int64_t kPartialHeader = 4;

// Start the decode and the prefill kernel for a plan's tasks with `blocks` blocks for each key/value head.
void attend_narrow(const AttentionCall& call, DType dtype, int64_t blocks, cudaStream_t stream);
void attend_wide(const AttentionCall& call, DType dtype, int64_t blocks, cudaStream_t stream);

// In place of attend_wide on compute capability 9.0, with tiles of up to hopper_pairs(); 0: not for such heads. blocks: for all heads together.
// num_pages: that keys and values have.
int64_t hopper_pairs(int64_t head_dim);
void attend_hopper(const AttentionCall& call, DType dtype, int64_t num_pages, int64_t blocks, cudaStream_t stream);

// Float32 keys and values; needs no plan.
void attend_float32(const AttentionCall& call, cudaStream_t stream);

}  // namespace cuda
}  // namespace parley

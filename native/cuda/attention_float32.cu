// Attention over float32 keys and values: for models that are kept in float32. Correct, not tuned: a warp has one query, goes through
// the keys 32 at a time in order from a multiple of 32 on, and rescales its sums as it goes; so a row's bits are its own.
#include <cmath>

#include "base/arithmetic.h"
#include "cuda/attention_call.h"
#include "cuda/attention_merge.h"
#include "cuda/kv_layout.h"
#include "cuda/launch.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kLaneDims = kMaxHeadDim / 32;  // dims lane, lane + 32, …

constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ float largest_of_warp(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}
__device__ float sum_of_warp(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__global__ void __launch_bounds__(32 * kWarps) attend_rows(const AttentionCall call) {
  wait_for_previous_kernel();
  __shared__ float queries[kWarps][kMaxHeadDim];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int num_heads = call.num_kv_heads * call.heads_per_kv;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  const int64_t row = index / num_heads;
  const int head = static_cast<int>(index % num_heads);
  if (row >= call.out.rows) return;

  const int kv_head = head / call.heads_per_kv;
  const float* query = call.qkv.row(row) + static_cast<int64_t>(head) * call.head_dim;
  for (int dim = lane; dim < call.head_dim; dim += 32) queries[warp][dim] = query[dim];
  __syncwarp();

  const int32_t* pages = call.page_table.row(call.sequences[row]);
  const auto numbers_of = [&](const void* numbers, int key) {
    return static_cast<const float*>(numbers) +
           kv_index(pages[key / kPageSize], kv_head, key % kPageSize, 0, call.num_kv_heads, call.head_dim);
  };
  const int position = call.positions[row];
  const int first_key = call.window > 0 ? max(position - call.window + 1, 0) : 0;
  const int last_key = call.num_keys > 0 ? call.num_keys : position + 1;
  const int columns = static_cast<int>(call.bias.cols);
  const int bias_column = call.bias_by_key ? 0 : (call.num_keys > 0 ? columns / 2 : columns - 1) - position;
  constexpr float kLog2e = 1.44269504f;

  float top = -INFINITY, total = 0, sums[kLaneDims] = {};
  for (int first = first_key / 32 * 32; first < last_key; first += 32) {
    const int key = first + lane;
    float score = -INFINITY;
    if (key >= first_key && key < last_key) {
      const float* numbers = numbers_of(call.keys, key);
      float product = 0;
      for (int dim = 0; dim < call.head_dim; ++dim) product = fmaf(queries[warp][dim], numbers[dim], product);
      score = product * call.scale;
      if (call.softcap != 0) score = call.softcap * tanhf(score * (1 / call.softcap));
      if (call.bias.data) score += call.bias.row(head)[min(max(bias_column + key, 0), columns - 1)];
      score *= kLog2e;
    }
    const MergeFactors factors(top, largest_of_warp(score));
    top = factors.top;
    const float weight = exp2_approximate(score - (top == -INFINITY ? 0 : top));
    total = fmaf(total, factors.all, sum_of_warp(weight));
    for (int i = 0; i < kLaneDims; ++i) sums[i] *= factors.all;
    for (int j = max(first_key - first, 0); j < min(32, last_key - first); ++j) {
      const float* numbers = numbers_of(call.values, first + j);
      const float shared_weight = __shfl_sync(kAllLanes, weight, j);
#pragma unroll
      for (int i = 0; i < kLaneDims; ++i) {
        const int dim = lane + 32 * i;
        if (dim < call.head_dim) sums[i] = fmaf(shared_weight, numbers[dim], sums[i]);
      }
    }
  }
  for (int i = 0; i < kLaneDims; ++i) {
    const int dim = lane + 32 * i;
    if (dim < call.head_dim) call.out.floats().row(row)[static_cast<int64_t>(head) * call.head_dim + dim] = sums[i] * (1 / total);
  }
}

}  // namespace

void attend_float32(const AttentionCall& call, cudaStream_t stream) {
  const int64_t queries = call.out.rows * call.num_kv_heads * call.heads_per_kv;
  launch(attend_rows, dim3(static_cast<unsigned>(ceil_div(queries, kWarps))), 32 * kWarps, 0, stream, call);
}

}  // namespace cuda
}  // namespace parley

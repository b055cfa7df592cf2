// What the kernels of `linear` are given, and what they have in common.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/activation.h"
#include "cuda/linear_hopper_plan.h"
#include "cuda/linear_plan.h"
#include "cuda/mma.h"
#include "cuda/tree_sum.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

// out = x W^T + bias, then the epilogue, for one weight or for the weights of many experts, which have one shape.
struct LinearCall {
  DType dtype;     // of the weights
  int32_t rows;    // of a weight
  int32_t cols;
  int32_t pitch;   // row_pitch(cols)
  int32_t tokens;
  int32_t num_slices;  // 1, 2, 4 or 8
  const void* weight;  // none where each token tile has its own
  const void* x;   // float32 [.., cols], or
  bool x_rounded;  // of the weights' type [.., pitch]: what all kernels want but those that say otherwise
  int64_t x_stride;
  const float* bias;  // [rows] or null
  void* out;          // [tokens, rows] float32, or
  bool rounds_out;    // of the weights' type
  int64_t out_stride;
  Epilogue epilogue;

  constexpr DType out_dtype() const { return rounds_out ? dtype : DType::float32; }
};

// The tokens of one block: rows first .. first + count of `out`, all with one weight.
struct TokenTile {
  const void* weight;
  int32_t first;
  int32_t count;
};

// The call's weight for all tokens, cut into tiles one after the other.
struct OneWeight {
  __device__ bool find(TokenTile& tile, const LinearCall& call, int index, int tile_tokens) const {
    const int first = index * tile_tokens;
    tile = {call.weight, first, min(tile_tokens, call.tokens - first)};
    return true;
  }
  __device__ int64_t x_row(int row) const { return row; }
};

// Experts whose weights a call can list: what fits into a kernel's arguments.
constexpr int64_t kMaxExperts = 384;

// Rows that are sorted by expert. `tiles` and the rest are written on the GPU (experts.cu), so a call has blocks for as many tiles as there
// can be, and those behind the last one return.
struct ExpertTile {
  int32_t expert;
  int32_t first;
  int32_t count;
};

struct ExpertWeightList {
  const ExpertTile* tiles;
  const int32_t* num_tiles;
  const int32_t* x_rows;  // the row of x that a row of out is made of, or null: the same
  const void* weights[kMaxExperts];

  __device__ bool find(TokenTile& tile, const LinearCall&, int index, int) const {
    if (index >= *num_tiles) return false;
    const ExpertTile found = tiles[index];
    tile = {weights[found.expert], found.first, found.count};
    return true;
  }
  __device__ int64_t x_row(int row) const { return x_rows ? x_rows[row] : row; }
};

// 8 numbers of the row x from column `col` on, rounded to T, as pairs; zeros behind the last column.
template <class T>
__device__ __forceinline__ void load_rounded(uint32_t (&pairs)[2][2], const float* x, int col, int cols) {
  float v[8];
  if (col + 8 <= cols && reinterpret_cast<uintptr_t>(x) % 16 == 0) {
    const float4 low = *reinterpret_cast<const float4*>(x + col);
    const float4 high = *reinterpret_cast<const float4*>(x + col + 4);
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = col + i < cols ? x[col + i] : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i / 2][i % 2] = pack_pair<T>(v[2 * i], v[2 * i + 1]);
}

// The same of a call's x, whose row starts at number `begin`.
template <class T>
__device__ __forceinline__ void load_tokens(uint32_t (&pairs)[2][2], const LinearCall& call, int64_t begin, int col) {
  if (!call.x_rounded) return load_rounded<T>(pairs, static_cast<const float*>(call.x) + begin, col, call.cols);
  const uint4 eight = *reinterpret_cast<const uint4*>(static_cast<const T*>(call.x) + begin + col);
  pairs[0][0] = eight.x, pairs[0][1] = eight.y, pairs[1][0] = eight.z, pairs[1][1] = eight.w;
}

// sum += 16 rows of W times 8 tokens over 32 columns. The order of the 16 products that one instruction adds is free, so each lane, with
// g = lane / 4 and t = lane % 4, takes 8 columns that lie together, 8 t .., in one load of 16 bytes: the first 4 go into one instruction, the
// others into a second, in the places where mma.h has columns 2 t, 2 t + 1, 2 t + 8, 2 t + 9.  upper, lower: rows g and g + 8 of W;
// tokens: token g; sum[0], sum[1]: row g, tokens 2 t and 2 t + 1; sum[2], sum[3]: row g + 8.
template <class T>
__device__ __forceinline__ void multiply_32(float (&sum)[4], const uint4& upper, const uint4& lower, const uint32_t (&tokens)[2][2]) {
  mma_m16n8k16<T>(sum, {upper.x, lower.x, upper.y, lower.y}, tokens[0]);
  mma_m16n8k16<T>(sum, {upper.z, lower.z, upper.w, lower.w}, tokens[1]);
}

// The first unit of 64 columns of a slice (linear_plan.h); that of slice num_slices is behind the last.
__device__ inline int slice_begin(const LinearCall& call, int slice) {
  return slice * (call.pitch / static_cast<int>(kUnitCols)) / call.num_slices;
}

// The tree of linear_plan.h for one who finishes slice after slice and holds n times 4 numbers: sums that wait for their other half, one a level.
template <int n>
struct WaitingSums {
  float4 sums[3][n];

  // `sum` is that of slice `index` of `count`; afterwards it is zero, or after the last one the total.
  __device__ void add_slice(float (&sum)[n][4], int index, int count) {
    int level = 0;
    for (; (index >> level) & 1; ++level) {
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const float4 total = add(sums[level][i], make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
        sum[i][0] = total.x, sum[i][1] = total.y, sum[i][2] = total.z, sum[i][3] = total.w;
      }
    }
    if (index + 1 == count) return;
#pragma unroll
    for (int i = 0; i < n; ++i) {
      sums[level][i] = make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
      for (float& number : sum[i]) number = 0.0f;
    }
  }
};

// x [T, cols] rounded to a 16-bit type: out [T, row_pitch(cols)], aligned to 16 bytes, zeros behind the last column. round_rows.cu
void round_rows(cudaStream_t stream, void* out, DType dtype, Matrix<const float> x);

// Kernels. x is rounded where nothing else is said. All give the same bits for the same numbers; `max_tiles` is the number of token tiles, or of those that there can be.

// 16-bit weights, at most kFewTokens tokens a tile: linear_few.cu. x is float32 or rounded. The calls of a pass, at most kMaxProducts, are one kernel.
void linear_few(cudaStream_t stream, Span<const LinearCall> calls, int64_t num_multiprocessors);
void linear_few(cudaStream_t stream, const LinearCall& call, const ExpertWeightList& source, int64_t max_tiles, int64_t num_multiprocessors);

// 16-bit weights, at most kMostHopperTokens tokens, on compute capability 9.0: linear_hopper_few.cu. The calls of a pass, at most kMaxProducts of
// one type and with the same number of tokens, are one kernel where `parts` have room for the sums that its blocks leave, and one that adds these.
struct HopperScratch {
  float4* parts;
  int64_t part_numbers;  // at least hopper_part_numbers()
};
void linear_hopper_few(cudaStream_t stream, Span<const LinearCall> calls, const HopperScratch& scratch, PassCuts& cuts, int64_t num_multiprocessors);

// 16-bit weights: linear_tile.cu. With tile.splits > 1, `partials` has room for max_split_blocks() tiles of
// kMaxTileNumbers, and `arrivals` as many counters that are zero, and are zero again afterwards.
template <class Source>
void linear_tile(cudaStream_t stream, const LinearCall& call, const Source& source, int64_t max_tiles, const LinearTile& tile,
                 float4* partials, unsigned* arrivals);

// 16-bit weights, one weight and any number of tokens, where runs_hopper_kernels(): linear_hopper_many.cu. `partials` has room for
// num_multiprocessors tiles of kMaxTileNumbers.
void linear_hopper_many(cudaStream_t stream, const LinearCall& call, float4* partials, int64_t num_multiprocessors);

// float32 weights, kFloat32Tokens tokens a tile: linear_float32.cu. x is float32.
constexpr int64_t kFloat32Tokens = 32;
template <class Source>
void linear_float32(cudaStream_t stream, const LinearCall& call, const Source& source, int64_t max_tiles);

}  // namespace cuda
}  // namespace parley

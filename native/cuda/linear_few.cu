// linear with 16-bit weights for up to 8 tokens: the weights go from memory straight into registers, once.
//
// A block computes 16 or 32 rows of W; it has a warp for each slice of the columns, and the slices' sums meet in shared memory. The weights
// are the 16-row operand of the tensor cores, the tokens the 8-column one; a lane's share of both: multiply_32 in linear_call.h.
#include "cuda/launch.h"
#include "cuda/linear_call.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kMostThreads = 32 * kNumSlices;

// Block (i, j) computes rows 16 kRowTiles i .. of token tile j.
template <class T, int kRowTiles, class Source>
__global__ void __launch_bounds__(kMostThreads, 2) few_kernel(LinearCall call, Source source) {
  constexpr int kRows = 16 * kRowTiles;
  constexpr int kDepth = 4 / kRowTiles;  // units on their way: 8 KiB a warp
  constexpr int kTokenStride = kRows + 4;  // lanes with different t write different banks
  __shared__ float sums[kNumSlices][kFewTokens * kTokenStride];

  TokenTile tile;
  if (!source.find(tile, call, static_cast<int>(blockIdx.y), kFewTokens)) return;
  const int slice = static_cast<int>(threadIdx.x) / 32;
  const int g = static_cast<int>(threadIdx.x) % 32 / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const int first_row = static_cast<int>(blockIdx.x) * kRows;

  // Rows g, g + 8, g + 16 ..; those behind the last one are read as the last one and not stored.
  const uint4* weight[2 * kRowTiles];
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    const int row = min(first_row + 8 * i + g, call.rows - 1);
    weight[i] = reinterpret_cast<const uint4*>(static_cast<const T*>(tile.weight) + static_cast<int64_t>(row) * call.pitch) + t;
  }
  const bool has_token = g < tile.count;
  const float* x = static_cast<const float*>(call.x) + source.x_row(tile.first + (has_token ? g : 0)) * call.x_stride;

  const int begin = slice_begin(call, slice);
  const int end = slice_begin(call, slice + 1);

  uint4 ahead[kDepth][2 * kRowTiles][2];  // [unit][row][half of the unit]
  const auto load = [&](uint4(&into)[2 * kRowTiles][2], int unit) {
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      into[i][0] = __ldcs(weight[i] + unit * 8);
      into[i][1] = __ldcs(weight[i] + unit * 8 + 4);
    }
  };
#pragma unroll
  for (int d = 0; d < kDepth; ++d) {
    if (begin + d < end) load(ahead[d], begin + d);
  }

  float acc[kRowTiles][4] = {};
  for (int first = begin; first < end; first += kDepth) {
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      const int unit = first + d;
      if (unit < end) {
        uint32_t tokens[2][2][2] = {};  // [half of the unit][instruction][register]
        if (has_token) {
          const int col = unit * static_cast<int>(kUnitCols) + 8 * t;
          load_rounded<T>(tokens[0], x, col, call.cols);
          load_rounded<T>(tokens[1], x, col + 32, call.cols);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int i = 0; i < kRowTiles; ++i) multiply_32<T>(acc[i], ahead[d][2 * i][half], ahead[d][2 * i + 1][half], tokens[half]);
        }
        if (unit + kDepth < end) load(ahead[d], unit + kDepth);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      sums[slice][(2 * t + j % 2) * kTokenStride + 16 * i + 8 * (j / 2) + g] = acc[i][j];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < tile.count * kRows; i += static_cast<int>(blockDim.x)) {
    const int row = first_row + i % kRows;
    const int token = i / kRows;
    if (row >= call.rows) continue;
    float y = tree_sum_up_to<kNumSlices>(call.num_slices, [&](int s) { return sums[s][token * kTokenStride + i % kRows]; });
    if (call.bias) y += call.bias[row];
    finish(call.out + (tile.first + token) * call.out_stride + row, y, call.epilogue);
  }
}

template <class T, class Source>
void start(cudaStream_t stream, const LinearCall& call, const Source& source, int64_t max_tiles, int64_t block_rows) {
  const dim3 grid(static_cast<unsigned>(ceil_div(call.rows, block_rows)), static_cast<unsigned>(max_tiles));
  launch(block_rows == 32 ? few_kernel<T, 2, Source> : few_kernel<T, 1, Source>, grid,
         dim3(static_cast<unsigned>(32 * call.num_slices)), 0, stream, call, source);
}

}  // namespace

template <class Source>
void linear_few(cudaStream_t stream, const LinearCall& call, const Source& source, int64_t max_tiles, int64_t num_multiprocessors) {
  const int64_t block_rows = few_tokens_block_rows(call.rows, call.tokens, num_multiprocessors);
  if (call.dtype == DType::float16) {
    start<__half>(stream, call, source, max_tiles, block_rows);
  } else {
    start<__nv_bfloat16>(stream, call, source, max_tiles, block_rows);
  }
}

template void linear_few(cudaStream_t, const LinearCall&, const OneWeight&, int64_t, int64_t);
template void linear_few(cudaStream_t, const LinearCall&, const ExpertWeightList&, int64_t, int64_t);

}  // namespace cuda
}  // namespace parley

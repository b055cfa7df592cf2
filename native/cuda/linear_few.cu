// linear with 16-bit weights for up to 8 tokens: the weights go from memory straight into registers, once.
//
// A block computes 16 or 32 rows of W; it has a warp for each slice of the columns, and the slices' sums meet in shared memory. The weights
// are the 16-row operand of the tensor cores, the tokens the 8-column one; a lane's share of both: multiply_32 in linear_call.h.
#include <algorithm>

#include "cuda/launch.h"
#include "cuda/linear_call.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kMostThreads = 32 * kNumSlices;

// The rows 16 kRowTiles `block` .. of `out` for one tile of tokens. The block has as many warps as a call has slices, or more.
template <class T, int kRowTiles, class Source>
__device__ __forceinline__ void compute_rows(const LinearCall& call, const Source& source, const TokenTile& tile, int block) {
  constexpr int kRows = 16 * kRowTiles;
  constexpr int kDepth = 4 / kRowTiles;  // units on their way: 8 KiB a warp
  constexpr int kTokenStride = kRows + 4;  // lanes with different t write different banks
  __shared__ float sums[kNumSlices][kFewTokens * kTokenStride];

  const int slice = static_cast<int>(threadIdx.x) / 32;
  const int g = static_cast<int>(threadIdx.x) % 32 / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const int first_row = block * kRows;

  // Rows g, g + 8, g + 16 ..; those behind the last one are read as the last one and not stored.
  const uint4* weight[2 * kRowTiles];
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    const int row = min(first_row + 8 * i + g, call.rows - 1);
    weight[i] = reinterpret_cast<const uint4*>(static_cast<const T*>(tile.weight) + static_cast<int64_t>(row) * call.pitch) + t;
  }
  const bool has_token = g < tile.count;
  const int64_t token_begin = source.x_row(tile.first + (has_token ? g : 0)) * call.x_stride;

  const bool has_slice = slice < call.num_slices;
  const int begin = has_slice ? slice_begin(call, slice) : 0;
  const int end = has_slice ? slice_begin(call, slice + 1) : 0;

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
          load_tokens<T>(tokens[0], call, token_begin, col);
          load_tokens<T>(tokens[1], call, token_begin, col + 32);
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
    finish<T>(call.out, call.rounds_out, (tile.first + token) * call.out_stride + row, y, call.epilogue);
  }
}

// What a kernel is given of a pass. Calls with one `out` have the same blocks, which do one after the other.
struct Pass {
  LinearCall calls[kMaxProducts];
  int32_t first_block[kMaxProducts];
  int32_t num_calls;
};

template <class T, int kRowTiles>
__global__ void __launch_bounds__(kMostThreads, 2) few_pass_kernel(Pass pass) {
  wait_for_previous_kernel();
  for (int i = 0; i < pass.num_calls; ++i) {
    const LinearCall& call = pass.calls[i];
    const int block = static_cast<int>(blockIdx.x) - pass.first_block[i];
    if (block < 0 || block * 16 * kRowTiles >= call.rows) continue;
    TokenTile tile;
    OneWeight().find(tile, call, 0, kFewTokens);
    compute_rows<T, kRowTiles>(call, OneWeight(), tile, block);
    __syncthreads();  // everybody has read the sums
  }
}

// Block (i, j) computes rows 16 kRowTiles i .. of token tile j.
template <class T, int kRowTiles>
__global__ void __launch_bounds__(kMostThreads, 2) few_experts_kernel(LinearCall call, ExpertWeightList experts) {
  wait_for_previous_kernel();
  TokenTile tile;
  if (!experts.find(tile, call, static_cast<int>(blockIdx.y), kFewTokens)) return;
  compute_rows<T, kRowTiles>(call, experts, tile, static_cast<int>(blockIdx.x));
}

template <class T>
void start_pass(cudaStream_t stream, Span<const LinearCall> calls, int64_t num_multiprocessors) {
  const auto is_first = [&](int64_t i) { return i == 0 || calls[i].out != calls[i - 1].out; };
  int64_t rows = 0;
  for (int64_t i = 0; i < calls.size; ++i) rows += is_first(i) ? calls[i].rows : 0;
  const int64_t block_rows = few_tokens_block_rows(rows, calls[0].tokens, num_multiprocessors);
  Pass pass{};
  int64_t num_blocks = 0;
  int32_t num_slices = 0;
  for (int64_t i = 0; i < calls.size; ++i) {
    pass.calls[i] = calls[i];
    pass.first_block[i] = is_first(i) ? static_cast<int32_t>(num_blocks) : pass.first_block[i - 1];
    num_blocks = pass.first_block[i] + ceil_div(calls[i].rows, block_rows);
    num_slices = std::max(num_slices, calls[i].num_slices);
  }
  pass.num_calls = static_cast<int32_t>(calls.size);
  launch(block_rows == 32 ? few_pass_kernel<T, 2> : few_pass_kernel<T, 1>, dim3(static_cast<unsigned>(num_blocks)),
         dim3(static_cast<unsigned>(32 * num_slices)), 0, stream, pass);
}

template <class T>
void start_experts(cudaStream_t stream, const LinearCall& call, const ExpertWeightList& experts, int64_t max_tiles, int64_t num_multiprocessors) {
  const int64_t block_rows = few_tokens_block_rows(call.rows, call.tokens, num_multiprocessors);
  const dim3 grid(static_cast<unsigned>(ceil_div(call.rows, block_rows)), static_cast<unsigned>(max_tiles));
  launch(block_rows == 32 ? few_experts_kernel<T, 2> : few_experts_kernel<T, 1>, grid, dim3(static_cast<unsigned>(32 * call.num_slices)), 0, stream,
         call, experts);
}

}  // namespace

void linear_few(cudaStream_t stream, Span<const LinearCall> calls, int64_t num_multiprocessors) {
  (calls[0].dtype == DType::float16 ? start_pass<__half> : start_pass<__nv_bfloat16>)(stream, calls, num_multiprocessors);
}

void linear_few(cudaStream_t stream, const LinearCall& call, const ExpertWeightList& experts, int64_t max_tiles, int64_t num_multiprocessors) {
  (call.dtype == DType::float16 ? start_experts<__half> : start_experts<__nv_bfloat16>)(stream, call, experts, max_tiles, num_multiprocessors);
}

}  // namespace cuda
}  // namespace parley

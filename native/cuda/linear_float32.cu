// linear with float32 weights: plain float32 multiply-adds, in the order of linear_plan.h. Correct and untuned: checkpoints that are served
// from a GPU have 16-bit weights.
//
// A block computes 32 rows by 32 tokens, a thread one row of 4 tokens; 32 columns of both stand in shared memory.
#include "cuda/launch.h"
#include "cuda/linear_call.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kRows = 32;
constexpr int kCols = 32;
constexpr int kThreads = 256;
constexpr int kTokensOfThread = 4;
constexpr int kTokenStep = kThreads / kRows;
static_assert(kTokensOfThread * kTokenStep == kFloat32Tokens, "");

template <class Source>
__global__ void __launch_bounds__(kThreads) float32_kernel(LinearCall call, Source source) {
  wait_for_previous_kernel();
  __shared__ float weight[kRows][kCols + 1];
  __shared__ float x[kFloat32Tokens][kCols];
  TokenTile tile;
  if (!source.find(tile, call, static_cast<int>(blockIdx.x), static_cast<int>(kFloat32Tokens))) return;
  const int first_row = static_cast<int>(blockIdx.y) * kRows;
  const int lane = static_cast<int>(threadIdx.x) % 32;  // a column while copying, a row while multiplying
  const int warp = static_cast<int>(threadIdx.x) / 32;

  float sums[1][kTokensOfThread] = {};
  WaitingSums<1> waiting;
  for (int slice = 0; slice < call.num_slices; ++slice) {
    const int end = slice_begin(call, slice + 1) * static_cast<int>(kUnitCols);
    for (int first = slice_begin(call, slice) * static_cast<int>(kUnitCols); first < end; first += kCols) {
      for (int i = warp; i < kRows; i += kThreads / 32) {
        const int row = min(first_row + i, call.rows - 1);
        weight[i][lane] = static_cast<const float*>(tile.weight)[static_cast<int64_t>(row) * call.pitch + first + lane];
      }
      for (int i = warp; i < kFloat32Tokens; i += kThreads / 32) {
        const float* token = static_cast<const float*>(call.x) + source.x_row(tile.first + min(i, tile.count - 1)) * call.x_stride;
        x[i][lane] = first + lane < call.cols ? token[first + lane] : 0.0f;
      }
      __syncthreads();
      for (int col = 0; col < kCols; ++col) {
#pragma unroll
        for (int i = 0; i < kTokensOfThread; ++i) sums[0][i] = fmaf(weight[lane][col], x[warp + i * kTokenStep][col], sums[0][i]);
      }
      __syncthreads();
    }
    waiting.add_slice(sums, slice, call.num_slices);
  }

  const int row = first_row + lane;
  if (row >= call.rows) return;
  const float bias = call.bias ? call.bias[row] : 0.0f;
#pragma unroll
  for (int i = 0; i < kTokensOfThread; ++i) {
    const int token = warp + i * kTokenStep;
    if (token >= tile.count) continue;
    finish<float>(call.out, false, (tile.first + token) * call.out_stride + row, call.bias ? sums[0][i] + bias : sums[0][i], call.epilogue);
  }
}

}  // namespace

template <class Source>
void linear_float32(cudaStream_t stream, const LinearCall& call, const Source& source, int64_t max_tiles) {
  const dim3 grid(static_cast<unsigned>(max_tiles), static_cast<unsigned>(ceil_div(call.rows, int64_t{kRows})));
  launch(float32_kernel<Source>, grid, dim3(kThreads), 0, stream, call, source);
}

template void linear_float32(cudaStream_t, const LinearCall&, const OneWeight&, int64_t);
template void linear_float32(cudaStream_t, const LinearCall&, const ExpertWeightList&, int64_t);

}  // namespace cuda
}  // namespace parley

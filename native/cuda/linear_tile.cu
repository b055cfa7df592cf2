// linear with 16-bit weights for many tokens: tiles of weights and of tokens come through shared memory, several units of 64 columns ahead.
//
// A block of 8 warps, 4 along the rows of W and 2 along the tokens, computes a tile of 64 or 128 rows by 16 .. 128 tokens. With splits, as
// many blocks share the slices of a tile's columns; each leaves its part in memory, and the last to arrive adds them. The operands lie as
// multiply_32 of linear_call.h wants them.
//
// In shared memory a unit of n rows is [half of 32 columns][row ^ half][32 columns]. Eight lanes that read together, (g, g + 1) x t, so take
// 128 bytes that lie together, and eight threads that write one row's 128 bytes meet all banks once: no conflict either way.
#include "cuda/launch.h"
#include "cuda/linear_call.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kRowWarps = 4;
constexpr int kTokenWarps = 2;
constexpr int kThreads = 32 * kRowWarps * kTokenWarps;
constexpr int kUnitPieces = 8;  // of 16 bytes, in a unit of a row

// A warp's share of a tile: kRowTiles times 16 rows by kTokenTiles times 8 tokens.
template <int kRowTiles, int kTokenTiles>
struct Shape {
  static constexpr int kRows = kRowWarps * kRowTiles * 16;
  static constexpr int kTokens = kTokenWarps * kTokenTiles * 8;
  static constexpr int kStagePieces = (kRows + kTokens) * kUnitPieces;
  static constexpr int kStages = kRows == 64 ? 6 : 3;  // two blocks a multiprocessor
  static constexpr int64_t kSharedBytes = int64_t{kStages} * kStagePieces * 16;
  static constexpr int kTokenStride = kRows + 4;  // of finished sums: lanes with different t write different banks
  static_assert(int64_t{kTokens} * kTokenStride * 4 <= kSharedBytes, "");
  static constexpr int kSums = kRowTiles * kTokenTiles;  // of a thread, times 4
};

// Where piece `piece` of row `row` lies in a unit of `rows` rows.
__device__ inline int shared_piece(int rows, int row, int piece) {
  const int half = piece / 4;
  return half * rows * 4 + (row ^ half) * 4 + piece % 4;
}

// The rows of a matrix that a thread copies of every unit: its piece of rows thread / 8, + 32, + 64 ...
template <int kRows>
struct UnitCopy {
  static constexpr int kRowsAtOnce = kThreads / kUnitPieces;
  static constexpr int kCopies = (kRows + kRowsAtOnce - 1) / kRowsAtOnce;
  int32_t offsets[kCopies];  // in pieces

  __device__ static int row(int copy) { return static_cast<int>(threadIdx.x) / kUnitPieces + copy * kRowsAtOnce; }

  __device__ void copy(uint4* shared, const uint4* data, int unit) const {
    const int piece = static_cast<int>(threadIdx.x) % kUnitPieces;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (kRows % kRowsAtOnce == 0 || row(i) < kRows) {
        cp_async_16(shared + shared_piece(kRows, row(i), piece), data + offsets[i] + unit * kUnitPieces + piece);
      }
    }
  }
};

// Block (i, j, k): token tile i, rows of tile j, part k of the columns. Neighbours share rows, which so come from memory once.
template <class T, int kRowTiles, int kTokenTiles, class Source>
__global__ void __launch_bounds__(kThreads, kTokenTiles == 8 ? 1 : 2) tile_kernel(LinearCall call, Source source, float4* partials, unsigned* arrivals) {
  wait_for_previous_kernel();
  using S = Shape<kRowTiles, kTokenTiles>;
  uint4* stages = dynamic_shared<uint4>();

  TokenTile tile;
  if (!source.find(tile, call, static_cast<int>(blockIdx.x), S::kTokens)) return;
  const int first_row = static_cast<int>(blockIdx.y) * S::kRows;
  const int g = static_cast<int>(threadIdx.x) % 32 / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 % kRowWarps * (kRowTiles * 16);
  const int warp_token = static_cast<int>(threadIdx.x) / 32 / kRowWarps * (kTokenTiles * 8);

  // Rows and tokens behind the last one are read as the last one and not stored.
  const int pitch_pieces = call.pitch / 8;
  UnitCopy<S::kRows> rows;
#pragma unroll
  for (int i = 0; i < rows.kCopies; ++i) {
    rows.offsets[i] = min(first_row + rows.row(i), call.rows - 1) * pitch_pieces;
  }
  UnitCopy<S::kTokens> tokens;
#pragma unroll
  for (int i = 0; i < tokens.kCopies; ++i) {
    tokens.offsets[i] = static_cast<int32_t>(source.x_row(tile.first + min(tokens.row(i), tile.count - 1))) * pitch_pieces;
  }
  const uint4* weight = static_cast<const uint4*>(tile.weight);
  const uint4* x = static_cast<const uint4*>(call.x);

  const int num_slices = call.num_slices / static_cast<int>(gridDim.z);
  const int first_slice = static_cast<int>(blockIdx.z) * num_slices;
  const int begin = slice_begin(call, first_slice);
  const int end = slice_begin(call, first_slice + num_slices);

  // One group of copies a unit, empty behind the last one, keeps the count.
  const auto fetch = [&](int stage, int unit) {
    if (unit < end) {
      rows.copy(stages + stage * S::kStagePieces, weight, unit);
      tokens.copy(stages + stage * S::kStagePieces + S::kRows * kUnitPieces, x, unit);
    }
    cp_async_commit();
  };
#pragma unroll
  for (int i = 0; i < S::kStages - 1; ++i) fetch(i, begin + i);

  float sums[S::kSums][4] = {};  // [row tile, token tile][4]
  WaitingSums<S::kSums> waiting;
  int unit = begin;
  int current = 0;  // stage
  for (int slice = 0; slice < num_slices; ++slice) {
    const int slice_end = slice_begin(call, first_slice + slice + 1);
    for (; unit < slice_end; ++unit) {
      cp_async_wait<S::kStages - 2>();
      __syncthreads();  // the unit is there for all, and all are done with the one before it
      fetch(current == 0 ? S::kStages - 1 : current - 1, unit + S::kStages - 1);
      const uint4* stage = stages + current * S::kStagePieces;
      current = current == S::kStages - 1 ? 0 : current + 1;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint4 a[kRowTiles][2];
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
          a[i][0] = stage[shared_piece(S::kRows, warp_row + 16 * i + g, 4 * half + t)];
          a[i][1] = stage[shared_piece(S::kRows, warp_row + 16 * i + 8 + g, 4 * half + t)];
        }
#pragma unroll
        for (int j = 0; j < kTokenTiles; ++j) {
          const uint4 b = stage[S::kRows * kUnitPieces + shared_piece(S::kTokens, warp_token + 8 * j + g, 4 * half + t)];
          const uint32_t tokens_of_8[2][2] = {{b.x, b.y}, {b.z, b.w}};
#pragma unroll
          for (int i = 0; i < kRowTiles; ++i) multiply_32<T>(sums[i * kTokenTiles + j], a[i][0], a[i][1], tokens_of_8);
        }
      }
    }
    waiting.add_slice(sums, slice, num_slices);
  }

  if (gridDim.z > 1) {
    // Parts lie as the threads hold them: [part][row tile, token tile][thread], four numbers each.
    const int tile_index = static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x);
    const int num_parts = static_cast<int>(gridDim.z);
    float4* parts = partials + static_cast<int64_t>(tile_index) * num_parts * S::kSums * kThreads + threadIdx.x;
    float4* mine = parts + static_cast<int64_t>(blockIdx.z) * S::kSums * kThreads;
#pragma unroll
    for (int i = 0; i < S::kSums; ++i) mine[i * kThreads] = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      last = atomicAdd(arrivals + tile_index, 1u) == gridDim.z - 1;
      if (last) arrivals[tile_index] = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
#pragma unroll
    for (int i = 0; i < S::kSums; ++i) {
      const auto part = [&](int k) { return __ldcg(parts + (k * S::kSums + i) * kThreads); };
      const float4 sum = num_parts == 2 ? tree_sum<2>(part) : num_parts == 4 ? tree_sum<4>(part) : tree_sum<8>(part);
      sums[i][0] = sum.x, sums[i][1] = sum.y, sums[i][2] = sum.z, sums[i][3] = sum.w;
    }
  }

  // Through shared memory, [token][row], so that neighbouring threads write neighbouring numbers.
  float* finished = reinterpret_cast<float*>(stages);
  __syncthreads();  // everybody has read the last stage
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        finished[(warp_token + 8 * j + 2 * t + c % 2) * S::kTokenStride + warp_row + 16 * i + 8 * (c / 2) + g] =
            sums[i * kTokenTiles + j][c];
      }
    }
  }
  __syncthreads();
  const int local_row = static_cast<int>(threadIdx.x) % S::kRows;
  const int row = first_row + local_row;
  if (row >= call.rows) return;
  const float bias = call.bias ? call.bias[row] : 0.0f;
  for (int token = static_cast<int>(threadIdx.x) / S::kRows; token < tile.count; token += kThreads / S::kRows) {
    float y = finished[token * S::kTokenStride + local_row];
    if (call.bias) y += bias;
    finish<T>(call.out, call.rounds_out, (tile.first + token) * call.out_stride + row, y, call.epilogue);
  }
}

template <class T, int kRowTiles, int kTokenTiles, class Source>
void start(cudaStream_t stream, const LinearCall& call, const Source& source, int64_t max_tiles, int64_t splits, float4* partials,
           unsigned* arrivals) {
  using S = Shape<kRowTiles, kTokenTiles>;
  const dim3 grid(static_cast<unsigned>(max_tiles), static_cast<unsigned>(ceil_div(call.rows, int64_t{S::kRows})),
                  static_cast<unsigned>(splits));
  launch(tile_kernel<T, kRowTiles, kTokenTiles, Source>, grid, dim3(kThreads), S::kSharedBytes, stream, call, source, partials, arrivals);
}

template <class T, class Source>
void start(cudaStream_t stream, const LinearCall& call, const Source& source, int64_t max_tiles, const LinearTile& tile, float4* partials,
           unsigned* arrivals) {
  switch (tile.tokens) {
    case 16: return start<T, 1, 1>(stream, call, source, max_tiles, tile.splits, partials, arrivals);
    case 32: return start<T, 1, 2>(stream, call, source, max_tiles, tile.splits, partials, arrivals);
    case 64: return start<T, 2, 4>(stream, call, source, max_tiles, tile.splits, partials, arrivals);
    default: return start<T, 2, 8>(stream, call, source, max_tiles, tile.splits, partials, arrivals);
  }
}

}  // namespace

template <class Source>
void linear_tile(cudaStream_t stream, const LinearCall& call, const Source& source, int64_t max_tiles, const LinearTile& tile,
                 float4* partials, unsigned* arrivals) {
  if (call.dtype == DType::float16) {
    start<__half>(stream, call, source, max_tiles, tile, partials, arrivals);
  } else {
    start<__nv_bfloat16>(stream, call, source, max_tiles, tile, partials, arrivals);
  }
}

template void linear_tile(cudaStream_t, const LinearCall&, const OneWeight&, int64_t, const LinearTile&, float4*, unsigned*);
template void linear_tile(cudaStream_t, const LinearCall&, const ExpertWeightList&, int64_t, const LinearTile&, float4*, unsigned*);

}  // namespace cuda
}  // namespace parley

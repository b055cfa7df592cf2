// linear with 16-bit weights for many tokens on compute capability 9.0.
//
// One block a multiprocessor computes tiles of 128 rows of W by 128 tokens, one after the other. A thread of its own starts the loads of units of 64
// columns, up to kStages ahead and on into the next tile; two warpgroups multiply 64 rows each; another one stores what is finished, while they go on.
//
// The tree of linear_plan.h is added by each thread for itself. Two slices have registers of their own, so that the tensor cores go from one
// to the other without a pause and begin the next two while the sum of these goes into the tree. What waits there is in shared memory, where the
// finished tile is turned afterwards, and on the level above in the block's place of `partials`.
#include <algorithm>

#include "cuda/hopper.h"
#include "cuda/launch.h"
#include "cuda/linear_call.h"
#include "cuda/numbers.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kGroupRows = 64;
constexpr int kRows = 2 * kGroupRows;
constexpr int kTokens = 128;
constexpr int kStages = 5;
constexpr int kUnit = static_cast<int>(kUnitCols);
constexpr int kRowBytes = 2 * kUnit;
constexpr int kStageBytes = (kRows + kTokens) * kRowBytes;
constexpr int kSums = kTokens / 2;  // of a thread
constexpr int64_t kSharedBytes = kStages * kStageBytes + kRows * kTokens * 4;
constexpr int kGroupThreads = 128;
constexpr int kThreads = 4 * kGroupThreads;

// Blocks that work at a time have tiles that lie together, so that few rows and few tokens are read.
constexpr int kBand = 16;

struct Tile {
  int row;
  int token;
};

// Tile `index`: those of kBand times kRows rows and all tokens, row by row, then those of the next rows.
__device__ inline Tile tile_at(const LinearCall& call, int index) {
  const int heights = (call.rows + kRows - 1) / kRows;
  const int in_band = kBand * ((call.tokens + kTokens - 1) / kTokens);
  const int first = index / in_band * kBand;
  const int width = min(kBand, heights - first);
  return {(first + index % in_band % width) * kRows, index % in_band / width * kTokens};
}

// The stage of the next unit, and the parity of its barriers' phase.
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ void next() {
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
};

// Of a row in a token's totals: lanes of different tokens write different banks.
__device__ inline int place(int row, int token) { return row ^ (token / 2 % 4 * 8); }

// A warp stores a token's rows, kWidth a thread, after the other.
template <int kWidth>
__device__ void store_tile(const LinearCall& call, const Tile& tile, const float* totals, int thread) {
  constexpr int kLanes = kRows / kWidth;
  const int local_row = thread % kLanes * kWidth;
  const int row = tile.row + local_row;
  if (row >= call.rows) return;
  Pack<float, kWidth> bias{};
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if (call.bias) bias.numbers[i] = call.bias[row + i];
  }
  const float* group_totals = totals + local_row / kGroupRows * kGroupRows * kTokens;
  const int count = min(kTokens, call.tokens - tile.token);
#pragma unroll 2
  for (int token = thread / kLanes; token < count; token += kGroupThreads / kLanes) {
    Pack<float, kWidth> y = load_pack<kWidth>(group_totals + token * kGroupRows + place(local_row % kGroupRows, token));
    if (call.bias) y = add(y, bias);
    const int64_t index = (tile.token + token) * call.out_stride + row;
    activate_all(y.numbers, call.epilogue);
    if (call.epilogue == Epilogue::accumulate) y = add(load_pack<kWidth>(static_cast<const float*>(call.out) + index), y);
    store_rounded<kWidth>(call.out, call.out_dtype(), index, y);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) many_kernel(const __grid_constant__ CUtensorMap weight, const __grid_constant__ CUtensorMap x,
                                                           const __grid_constant__ LinearCall call, int num_tiles, bool fours, float4* partials) {
  char* stages = dynamic_shared<char>();
  __shared__ uint64_t full[kStages], empty[kStages], finished, stored;
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  float* totals = reinterpret_cast<float*>(stages + kStages * kStageBytes);  // of both groups, [group][token][row]
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) barrier_init(&full[i], 1), barrier_init(&empty[i], 2 * kGroupThreads / 32);
    barrier_init(&finished, 2 * kGroupThreads);
    barrier_init(&stored, kGroupThreads);
    barrier_init_fence();
  }
  __syncthreads();
  wait_for_previous_kernel();

  if (group == 2) {
    give_up_registers<24>();
    if (thread > 0) return;
    const int num_units = call.pitch / kUnit;
    Ring ring;
    for (int index = static_cast<int>(blockIdx.x); index < num_tiles; index += static_cast<int>(gridDim.x)) {
      const Tile tile = tile_at(call, index);
      for (int unit = 0; unit < num_units; ++unit, ring.next()) {
        char* stage = stages + ring.stage * kStageBytes;
        barrier_wait(&empty[ring.stage], ring.phase ^ 1);
        barrier_expect(&full[ring.stage], kStageBytes);
        tensor_load(stage, weight, unit * kUnit, tile.row, &full[ring.stage]);
        tensor_load(stage + kRows * kRowBytes, x, unit * kUnit, tile.token, &full[ring.stage]);
      }
    }
  } else if (group == 3) {
    give_up_registers<40>();
    uint32_t phase = 0;
    for (int index = static_cast<int>(blockIdx.x); index < num_tiles; index += static_cast<int>(gridDim.x), phase ^= 1) {
      const Tile tile = tile_at(call, index);
      barrier_wait(&finished, phase);
      if (fours) {
        store_tile<4>(call, tile, totals, thread);
      } else {
        store_tile<1>(call, tile, totals, thread);
      }
      barrier_arrive(&stored);
    }
  } else {
    take_registers<224>();
    float* mine = totals + group * kGroupRows * kTokens;
    float* lower = mine + thread;  // [sum][thread]
    float4* upper = partials + (static_cast<int>(blockIdx.x) * 2 + group) * (kSums / 4 * kGroupThreads) + thread;  // [four sums][thread]
    Ring ring;
    const int num_units = call.pitch / kUnit;
    const int slice_bits = __popc(static_cast<unsigned>(call.num_slices - 1));
    const auto first_unit = [&](int slice) { return slice * num_units >> slice_bits; };  // slice_begin, without a division
    int busy = -1;  // the stage that the newest multiplications read
    const auto release = [&](int stage) {
      __syncwarp();
      if (stage >= 0 && thread % 32 == 0) barrier_arrive(&empty[stage]);
    };
    // sums = the slice's products, under way; meanwhile() while the first of them are.
    const auto multiply = [&](float(&sums)[kSums], int slice, const auto& meanwhile) {
      const int begin = first_unit(slice), end = first_unit(slice + 1);
      if (begin == end) meanwhile();
      for (int unit = begin; unit < end; ++unit) {
        barrier_wait(&full[ring.stage], ring.phase);
        const uint64_t a = wgmma_descriptor(stages + ring.stage * kStageBytes + group * kGroupRows * kRowBytes);
        const uint64_t b = wgmma_descriptor(stages + ring.stage * kStageBytes + kRows * kRowBytes);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kUnit / 16; ++k) wgmma_k16<T, kTokens>(sums, a + 2 * k, b + 2 * k, unit > begin || k > 0);
        wgmma_commit();
        if (unit == begin) meanwhile();
        wgmma_wait<1>();
        release(busy);
        busy = ring.stage;
        ring.next();
      }
    };
    const auto has_units = [&](int slice) { return first_unit(slice) < first_unit(slice + 1); };
    uint32_t before = 1;  // parity of the phase in which the tile before this one is stored
    const int num_pairs = (call.num_slices + 1) / 2;
    // Of a tile's pairs of slices but the last one.
    const auto add_to_tree = [&](float(&sums)[kSums], int pair) {
      if (pair % 2 == 0) {
        barrier_wait(&stored, before);
#pragma unroll
        for (int i = 0; i < kSums; ++i) lower[i * kGroupThreads] = sums[i];
      } else {
#pragma unroll
        for (int i = 0; i < kSums; i += 4) {
          const auto half = [&](int j) { return lower[(i + j) * kGroupThreads] + sums[i + j]; };
          __stcg(upper + i / 4 * kGroupThreads, make_float4(half(0), half(1), half(2), half(3)));
        }
      }
    };
    // The last pair's sums become the total.
    const auto finish_tree = [&](float(&sums)[kSums]) {
      if (num_pairs >= 2) {
#pragma unroll
        for (int i = 0; i < kSums; ++i) sums[i] = lower[i * kGroupThreads] + sums[i];
      }
      if (num_pairs == 4) {
        float4 halves[kSums / 4];
#pragma unroll
        for (int i = 0; i < kSums / 4; ++i) halves[i] = __ldcg(upper + i * kGroupThreads);
#pragma unroll
        for (int i = 0; i < kSums / 4; ++i) {
          sums[4 * i] = halves[i].x + sums[4 * i], sums[4 * i + 1] = halves[i].y + sums[4 * i + 1];
          sums[4 * i + 2] = halves[i].z + sums[4 * i + 2], sums[4 * i + 3] = halves[i].w + sums[4 * i + 3];
        }
      }
    };

    float sums[kSums];
    for (int index = static_cast<int>(blockIdx.x); index < num_tiles; index += static_cast<int>(gridDim.x)) {
      for (int pair = 0; pair < num_pairs; ++pair) {
        float even[kSums], odd[kSums];
        multiply(even, 2 * pair, [&] {
          if (pair > 0) add_to_tree(sums, pair - 1);
        });
        if (call.num_slices > 1) multiply(odd, 2 * pair + 1, [] {});
        wgmma_wait<0>();
        release(busy);
        busy = -1;
        wgmma_use(even);
        wgmma_use(odd);
        const bool all = call.num_slices > 1 && num_units >= call.num_slices;
        if (!all) {
          const bool has_even = has_units(2 * pair), has_odd = call.num_slices > 1 && has_units(2 * pair + 1);
#pragma unroll
          for (int i = 0; i < kSums; ++i) {
            if (!has_even) even[i] = 0.0f;
            if (!has_odd) odd[i] = 0.0f;
          }
        }
#pragma unroll
        for (int i = 0; i < kSums; ++i) sums[i] = even[i] + odd[i];
      }
      finish_tree(sums);

      // Turned, so that neighbouring threads store neighbouring numbers; see `place`.
      const int g = thread % 32 / 4, t = thread % 4, warp = thread / 32;
      barrier_wait(&stored, before);
      before ^= 1;
      sync_group(1 + group, kGroupThreads);  // everybody has read what waited
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        mine[(i / 4 * 8 + i % 2) * kGroupRows + 2 * t * kGroupRows + ((16 * warp + i / 2 % 2 * 8 + g) ^ (8 * t))] = sums[i];  // as `place`
      }
      barrier_arrive(&finished);
    }
  }
}

}  // namespace

void linear_hopper_many(cudaStream_t stream, const LinearCall& call, float4* partials, int64_t num_multiprocessors) {
  const CUtensorMap weight = tensor_map(call.weight, call.dtype, call.rows, call.pitch, kRows);
  const CUtensorMap x = tensor_map(call.x, call.dtype, call.tokens, call.pitch, kTokens);
  const int64_t num_tiles = ceil_div(call.rows, kRows) * ceil_div(call.tokens, kTokens);
  launch(call.dtype == DType::float16 ? many_kernel<__half> : many_kernel<__nv_bfloat16>,
         dim3(static_cast<unsigned>(std::min(num_tiles, num_multiprocessors))), dim3(kThreads), kSharedBytes, stream, weight, x, call,
         static_cast<int>(num_tiles), by_fours(call.out, call.out_stride, call.rows, dtype_bytes(call.out_dtype())), partials);
}

}  // namespace cuda
}  // namespace parley

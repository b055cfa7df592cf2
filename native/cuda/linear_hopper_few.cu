// linear with 16-bit weights for up to 64 tokens on compute capability 9.0, at the memory's speed.
//
// One block a multiprocessor stays for a whole pass. A warp streams tiles of weights, a unit of 64 columns by 64 or 128 rows each, into a ring
// of stages in shared memory, and never pauses: what it reads does not depend on earlier kernels, so it begins before they are done. Each
// warpgroup multiplies 64 rows of every unit by all tokens (wgmma: the weights are the 64-row operand).
//
// The items of work are (row tile, slice of the columns), a product's dealt out evenly as runs of neighbours (Shares of linear_plan.h), or in
// whole tiles where that is even enough. A block
// adds the slices of a tile that are its own as the tree of linear_plan.h does; if others have slices of it too, each block leaves the nodes of
// the tree that it has, and the last to arrive finishes the tree, so who had which slice does not show in the bits. Products with one `out`
// share the arrivals of a tile: the last one there adds product after product. All that is per warp, which has 16 rows of its own.
#include <algorithm>

#include "cuda/hopper.h"
#include "cuda/launch.h"
#include "cuda/linear_call.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kTileRows = 64;  // of a warpgroup
constexpr int kMostStages = 24;
constexpr int64_t kRingBytes = 96 * 1024, kLargeRingBytes = 192 * 1024;
constexpr int kMostLeftTiles = 32;
constexpr int kUnit = static_cast<int>(kUnitCols);
constexpr int kRowBytes = 2 * kUnit;  // of a tile

struct PassProduct {
  int32_t rows;
  int32_t cols;
  int32_t num_units;
  int32_t log_slices;
  int32_t log_grain;  // items are dealt out in grains of so many
  Shares shares;      // of the grains, tile after tile
  int32_t chain_end;  // products from chain_first until here have one `out`
  int32_t chain_first;
  int32_t first_part;     // of parts, each a node of one tile
  int32_t first_arrival;  // of its chain
  const float* bias;
  void* out;
  bool rounds_out;
  int64_t out_stride;
  Epilogue epilogue;

  __device__ bool in_chain() const { return chain_end - chain_first > 1; }
  __device__ int begin(int block) const { return shares.begin(block) << log_grain; }  // the first item of a block
  __device__ int block_of(int item) const { return shares.block_of(item >> log_grain); }
  __device__ int num_slices() const { return 1 << log_slices; }
  __device__ int slice_begin(int slice) const { return slice * num_units >> log_slices; }
  // Where what blocks leave of a tile is counted and kept. Of a product by itself, only the last of a block's tiles can go on in another block.
  __device__ int region(int tile) const { return in_chain() ? tile : block_of(tile << log_slices); }
  // Bit s: slice s of the tile is the first of another block than slice s - 1.
  __device__ unsigned cuts(int tile) const {
    const int first = tile << log_slices;
    unsigned bits = 0;
    for (int block = block_of(first) + 1;; ++block) {
      const int slice = begin(block) - first;
      if (slice >= num_slices()) return bits;
      bits |= 1u << slice;
    }
  }
};

struct HopperPass {
  CUtensorMap weights[kMaxProducts];
  CUtensorMap tokens[kMaxProducts];
  PassProduct products[kMaxProducts];
  int32_t num_products;
  int32_t num_tokens;
  int32_t num_stages;
  float4* parts;
  unsigned* arrivals;
};

template <int kTokens, int kWarpgroups>
struct Shape {
  static constexpr int kRows = kTileRows * kWarpgroups;
  static constexpr int kStageBytes = (kRows + kTokens) * kRowBytes;
  static constexpr bool kShifts = kTokens >= 32 && kWarpgroups == 2;  // registers, from a warpgroup that only copies to those that multiply
  static constexpr int kThreads = 128 * kWarpgroups + (kShifts ? 128 : 32);
  static constexpr int kSums = kTokens / 8;  // of a thread, times 4
};

// A place in the ring.
struct Place {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance(int num_stages) {
    if (++stage == num_stages) stage = 0, parity ^= 1;
  }
};

// use(product, tile, unit) for all units of a block, in order, until it returns false.
template <class Use>
__device__ __forceinline__ void for_each_unit(const HopperPass& pass, const Use& use) {
  const int block = static_cast<int>(blockIdx.x);
  for (int p = 0; p < pass.num_products; ++p) {
    const PassProduct& product = pass.products[p];
    const int end = product.begin(block + 1);
    for (int item = product.begin(block); item < end; ++item) {
      const int slice = item & (product.num_slices() - 1);
      const int units_end = product.slice_begin(slice + 1);
      for (int unit = product.slice_begin(slice); unit < units_end; ++unit) {
        if (!use(p, item >> product.log_slices, unit)) return;
      }
    }
  }
}

// Weights first, as many as the ring holds; tokens, and what overwrites the ring, when the kernels before have ended.
template <class S>
__device__ __forceinline__ void stream(const HopperPass& pass, unsigned char* ring, uint64_t* full, uint64_t* empty) {
  const auto load_weights = [&](int p, int tile, int unit, int stage) {
    barrier_expect(full + stage, S::kStageBytes);
    tensor_load<true>(ring + stage * S::kStageBytes, pass.weights[p], unit * kUnit, tile * S::kRows, full + stage);
  };
  int index = 0;
  for_each_unit(pass, [&](int p, int tile, int unit) {
    load_weights(p, tile, unit, index);
    return ++index < pass.num_stages;
  });
  wait_for_previous_kernel();
  index = 0;
  Place place;
  for_each_unit(pass, [&](int p, int tile, int unit) {
    if (index >= pass.num_stages) {
      barrier_wait(empty + place.stage, place.parity ^ 1);
      load_weights(p, tile, unit, place.stage);
    }
    tensor_load(ring + place.stage * S::kStageBytes + S::kRows * kRowBytes, pass.tokens[p], unit * kUnit, 0, full + place.stage);
    ++index;
    place.advance(pass.num_stages);
    return true;
  });
}

template <int n>
using Sums = float[n][4];

// A thread's numbers of part `part` of its warp: those of all its warp's threads lie side by side.
template <class S>
__device__ __forceinline__ float4* part_of(const HopperPass& pass, int part) {
  return pass.parts + static_cast<int64_t>(part) * (S::kSums * S::kRows * 2) + threadIdx.x;
}
template <class S>
constexpr int kPartStep = S::kRows * 2;  // threads that multiply

template <class S>
__device__ __forceinline__ void leave(const HopperPass& pass, int part, const Sums<S::kSums>& sums) {
  float4* numbers = part_of<S>(pass, part);
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) __stcg(numbers + i * kPartStep<S>, make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]));
}

// The tree of linear_plan.h above the nodes that blocks have left. Which nodes these are, the cuts say.
template <class S>
__device__ __forceinline__ void add_parts(const HopperPass& pass, const PassProduct& product, int tile, Sums<S::kSums>& sums) {
  constexpr int kAtOnce = S::kSums < 2 ? 1 : 2;
  const unsigned cuts = product.cuts(tile);
  const float4* first = part_of<S>(pass, product.first_part + (product.region(tile) << product.log_slices));
#pragma unroll
  for (int i = 0; i < S::kSums; i += kAtOnce) {
    float4 nodes[kAtOnce][kNumSlices];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
#pragma unroll
      for (int s = 0; s < kNumSlices; ++s) {
        if (s < product.num_slices()) nodes[j][s] = __ldcg(first + (s * S::kSums + i + j) * kPartStep<S>);
      }
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      float4(&node)[kNumSlices] = nodes[j];
#pragma unroll
      for (int width = 1; width < kNumSlices; width *= 2) {
#pragma unroll
        for (int s = 0; s < kNumSlices; s += 2 * width) {
          if (width < product.num_slices() && cuts >> (s + 1) & ((1u << (2 * width - 1)) - 1)) node[s] = add(node[s], node[s + width]);
        }
      }
      sums[i + j][0] = node[0].x, sums[i + j][1] = node[0].y, sums[i + j][2] = node[0].z, sums[i + j][3] = node[0].w;
    }
  }
}

// Bias and epilogue of a warp's 16 rows, from `first_row` on, and their way to memory: over shared memory, so that neighbours write neighbours.
constexpr int kPatchTokens = 16;
constexpr int kPatchStride = 16 + 4;  // lanes with different tokens write different banks
template <class T, int n>
__device__ __forceinline__ void finish_rows(const PassProduct& product, int num_tokens, int first_row, const Sums<n>& sums, float* patch) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = first_row + lane % 16;
  const float bias = product.bias && row < product.rows ? product.bias[row] : 0.0f;
#pragma unroll
  for (int first = 0; first < n; first += kPatchTokens / 8) {
    if (first * 8 >= num_tokens) break;
    __syncwarp();
#pragma unroll
    for (int i = first; i < n && i < first + kPatchTokens / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        patch[(8 * (i - first) + 2 * (lane % 4) + j % 2) * kPatchStride + 8 * (j / 2) + lane / 4] = sums[i][j];
      }
    }
    __syncwarp();
    constexpr int kCount = n < kPatchTokens / 8 ? 8 * n : kPatchTokens;
    const int count = row < product.rows ? min(num_tokens - first * 8, kCount) : 0;
    const float* y = patch + lane % 16;
    const int64_t place = first * 8 * product.out_stride + row;
    if (product.epilogue == Epilogue::accumulate) {
      float* out = static_cast<float*>(product.out) + place;
      float numbers[kCount / 2];
#pragma unroll
      for (int i = 0; i < kCount / 2; ++i) {
        const int token = 2 * i + lane / 16;
        if (token < count) numbers[i] = out[token * product.out_stride];
      }
#pragma unroll
      for (int i = 0; i < kCount / 2; ++i) {
        const int token = 2 * i + lane / 16;
        if (token < count) out[token * product.out_stride] = numbers[i] + (product.bias ? y[token * kPatchStride] + bias : y[token * kPatchStride]);
      }
    } else {
      for (int token = lane / 16; token < count; token += 2) {
        finish<T>(product.out, product.rounds_out, place + token * product.out_stride,
                  product.bias ? y[token * kPatchStride] + bias : y[token * kPatchStride], product.epilogue);
      }
    }
  }
}

// At most kMostLeftTiles tiles of which this warp has left nodes, and of which it has not told the others yet: lane i has the i-th.
struct LeftTiles {
  int count;
  int product;
  int tile;

  __device__ void add(int p, int t) {
    if (static_cast<int>(threadIdx.x) % 32 == count) product = p, tile = t;
    ++count;
  }
};

// Tells the others of the tiles, all at once, and finishes those to which no other warp will come.
template <class T, class S>
__device__ __forceinline__ void settle(const HopperPass& pass, LeftTiles left, float* patch) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  __threadfence();
  __syncwarp();
  bool is_last = false;
  if (lane < left.count) {
    const PassProduct& product = pass.products[left.product];
    unsigned expected = 0;  // blocks
    for (int i = product.chain_first; i < product.chain_end; ++i) expected += 1 + static_cast<unsigned>(__popc(pass.products[i].cuts(left.tile)));
    unsigned* arrival = pass.arrivals + (product.first_arrival + product.region(left.tile)) * (S::kRows / 16) + warp;
    is_last = atomicAdd(arrival, 1u) == expected - 1;
    if (is_last) *arrival = 0;
  }
  unsigned finished = __ballot_sync(0xffffffffu, is_last);
  if (finished == 0) return;
  __threadfence();
  for (; finished != 0; finished &= finished - 1) {
    const int from = __ffs(static_cast<int>(finished)) - 1;
    const int tile = __shfl_sync(0xffffffffu, left.tile, from);
    const PassProduct& first = pass.products[__shfl_sync(0xffffffffu, left.product, from)];
    for (int p = first.chain_first; p < first.chain_end; ++p) {
      Sums<S::kSums> sums;
      add_parts<S>(pass, pass.products[p], tile, sums);
      finish_rows<T, S::kSums>(pass.products[p], pass.num_tokens, tile * S::kRows + warp * 16, sums, patch);
    }
  }
}

template <class T, class S, int kTokens>
__device__ __forceinline__ void multiply(const HopperPass& pass, const unsigned char* ring, uint64_t* full, uint64_t* empty, float* patch) {
  constexpr int kLevels = 3;  // of the tree
  [[maybe_unused]] constexpr int kUnroll = kTokens <= 32 ? kLevels : 1;  // for more there are no registers: what waits is in local memory
  const int block = static_cast<int>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int rows_at = warp / 4 * kTileRows * kRowBytes;  // of the warpgroup, in a stage
  wait_for_previous_kernel();
  patch += warp * (kPatchTokens * kPatchStride);
  LeftTiles left{0, 0, 0};
  Place place;
  for (int p = 0; p < pass.num_products; ++p) {
    const PassProduct& product = pass.products[p];
    const int num_slices = product.num_slices();
    const int begin = product.begin(block), end = product.begin(block + 1);
    for (int tile = begin >> product.log_slices; begin < end && tile * num_slices < end; ++tile) {
      const int first = max(begin - tile * num_slices, 0), last = min(end - tile * num_slices, num_slices);
      const bool alone = first == 0 && last == num_slices && !product.in_chain();
      const int part = product.first_part + (product.region(tile) << product.log_slices);
      Sums<S::kSums> sums;
      Sums<S::kSums> waiting[kLevels];  // left children: nodes of 1, 2, 4 slices
      for (int slice = first; slice < last; ++slice) {
#pragma unroll
        for (int i = 0; i < S::kSums; ++i) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
        int previous = -1;  // stage
        for (int unit = product.slice_begin(slice), units_end = product.slice_begin(slice + 1); unit < units_end; ++unit) {
          barrier_wait(full + place.stage, place.parity);
          const unsigned char* stage = ring + place.stage * S::kStageBytes;
          const uint64_t weights = wgmma_descriptor(stage + rows_at), tokens = wgmma_descriptor(stage + S::kRows * kRowBytes);
          wgmma_fence();
#pragma unroll
          for (int k = 0; k < 4; ++k) wgmma_k16<T, kTokens>(reinterpret_cast<float(&)[kTokens / 2]>(sums), weights + 2 * k, tokens + 2 * k);
          wgmma_commit();
          if (previous >= 0) {
            wgmma_wait<1>();
            __syncwarp();
            if (lane == 0) barrier_arrive(empty + previous);
          }
          previous = place.stage;
          place.advance(pass.num_stages);
        }
        wgmma_wait<0>();
        wgmma_use(reinterpret_cast<float(&)[kTokens / 2]>(sums));
        __syncwarp();
        if (previous >= 0 && lane == 0) barrier_arrive(empty + previous);

        // Up the tree, as far as the other children are here.
        bool rises = true;
#pragma unroll kUnroll
        for (int level = 0; level < kLevels; ++level) {
          if (!rises || 1 << level >= num_slices) continue;
          const int node = slice >> level;
          if (node % 2 == 0) {
#pragma unroll
            for (int i = 0; i < S::kSums; ++i) {
#pragma unroll
              for (int j = 0; j < 4; ++j) waiting[level][i][j] = sums[i][j];
            }
            rises = false;
          } else if ((node - 1) << level >= first) {
#pragma unroll
            for (int i = 0; i < S::kSums; ++i) {
#pragma unroll
              for (int j = 0; j < 4; ++j) sums[i][j] = waiting[level][i][j] + sums[i][j];
            }
          } else {
            leave<S>(pass, part + (node << level), sums);
            rises = false;
          }
        }
        if (rises && !alone) leave<S>(pass, part, sums);
      }
      if (alone) {
        finish_rows<T, S::kSums>(product, pass.num_tokens, tile * S::kRows + warp * 16, sums, patch);
        continue;
      }
#pragma unroll kUnroll
      for (int level = 0; level < kLevels; ++level) {
        const int node = (last >> (level + 1)) << (level + 1);
        if ((last >> level & 1) && last < num_slices && node >= first) leave<S>(pass, part + node, waiting[level]);
      }
      left.add(p, tile);
    }
  }
  if (left.count > 0) settle<T, S>(pass, left, patch);
}

template <class T, int kTokens, int kWarpgroups>
__global__ void __launch_bounds__(Shape<kTokens, kWarpgroups>::kThreads, 1) hopper_few_kernel(const __grid_constant__ HopperPass pass) {
  using S = Shape<kTokens, kWarpgroups>;
  __shared__ uint64_t full[kMostStages], empty[kMostStages];
  __shared__ float patch[4 * kWarpgroups * kPatchTokens * kPatchStride];
  unsigned char* ring = dynamic_shared<unsigned char>();

  start_next_kernel();
  if (threadIdx.x == 0) {
    for (int i = 0; i < pass.num_stages; ++i) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 4 * kWarpgroups);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp < 4 * kWarpgroups) {
    if constexpr (S::kShifts) take_registers<232>();
    multiply<T, S, kTokens>(pass, ring, full, empty, patch);
  } else {
    if constexpr (S::kShifts) give_up_registers<40>();
    if (threadIdx.x == 128 * kWarpgroups) stream<S>(pass, ring, full, empty);
  }
}

template <class T, int kTokens, int kWarpgroups>
void start(cudaStream_t stream, HopperPass& pass, int64_t num_blocks) {
  using S = Shape<kTokens, kWarpgroups>;
  const int64_t ring = kWarpgroups == 1 && kTokens <= 16 ? kRingBytes : kLargeRingBytes;
  pass.num_stages = static_cast<int32_t>(std::min<int64_t>(kMostStages, ring / S::kStageBytes));
  launch(hopper_few_kernel<T, kTokens, kWarpgroups>, dim3(static_cast<unsigned>(num_blocks)), dim3(S::kThreads),
         int64_t{pass.num_stages} * S::kStageBytes, stream, pass);
}

template <class T, int kWarpgroups>
void start(cudaStream_t stream, HopperPass& pass, int64_t num_blocks, int64_t tokens) {
  switch (tokens) {
    case 8: return start<T, 8, kWarpgroups>(stream, pass, num_blocks);
    case 16: return start<T, 16, kWarpgroups>(stream, pass, num_blocks);
    case 32: return start<T, 32, kWarpgroups>(stream, pass, num_blocks);
    default: return start<T, 64, kWarpgroups>(stream, pass, num_blocks);
  }
}

// How a pass is cut: rows of a tile, and whether products alone with their `out` are dealt out in whole tiles. `bytes`: what a block reads of
// the weights at most, and what it costs to share tiles.
struct Cut {
  int64_t rows;
  bool whole;
  int64_t bytes;
};

Cut cut(Span<const LinearCall> calls, int64_t rows, int64_t tile_tokens, int64_t num_blocks) {
  int64_t split = sharing_bytes(tile_tokens), tiles = 0, tile_bytes = 0;
  bool chains = false;
  for (int64_t i = 0; i < calls.size; ++i) {
    const int64_t slices = calls[i].num_slices, num_tiles = ceil_div(calls[i].rows, rows), bytes = rows * calls[i].pitch * 2;
    split += ceil_div(num_tiles * slices, num_blocks) * (bytes / slices);
    tiles += num_tiles;
    tile_bytes = std::max(tile_bytes, bytes);
    chains |= i > 0 && calls[i].out == calls[i - 1].out;
  }
  const int64_t whole = ceil_div(tiles, num_blocks) * tile_bytes;
  return !chains && whole <= split ? Cut{rows, true, whole} : Cut{rows, false, split};
}

}  // namespace

void linear_hopper_few(cudaStream_t stream, Span<const LinearCall> calls, const HopperScratch& scratch, int64_t num_multiprocessors) {
  const int64_t tile_tokens = hopper_tile_tokens(calls[0].tokens), num_tokens = calls[0].tokens;
  const Cut low = cut(calls, kTileRows, tile_tokens, num_multiprocessors), high = cut(calls, 2 * kTileRows, tile_tokens, num_multiprocessors);
  const bool small = low.bytes * 20 < high.bytes * 19;  // higher tiles read the tokens less often
  const int64_t rows = small ? low.rows : high.rows;
  const bool whole = small ? low.whole : high.whole;
  const int64_t most_parts = scratch.part_numbers / (rows * tile_tokens);

  // Products with one `out` behind each other are a chain. One that finds no room is a pass for each product.
  for (int64_t begin = 0; begin < calls.size;) {
    HopperPass pass{};
    int64_t parts = 0, regions = 0, first_extra = 0;
    int64_t end = begin;
    while (end < calls.size) {
      int64_t chain_end = end + 1;
      while (chain_end < calls.size && calls[chain_end].out == calls[end].out) ++chain_end;
      const auto regions_of = [&](int64_t count) { return count == 1 ? num_multiprocessors : ceil_div(calls[end].rows, rows); };
      const auto parts_of = [&](int64_t count) {
        int64_t sum = 0;
        for (int64_t i = end; i < end + count; ++i) sum += regions_of(count) * calls[i].num_slices;
        return sum;
      };
      const auto fits = [&](int64_t count) {
        return parts + parts_of(count) <= most_parts && regions + regions_of(count) <= kMostHopperRegions &&
               (count == 1 || regions_of(count) < num_multiprocessors * (kMostLeftTiles - 1));
      };
      int64_t count = chain_end - end;
      if (!fits(count)) {
        if (end > begin) break;
        count = 1;
        chain_end = end + 1;
      }
      for (int64_t i = end; i < chain_end; ++i) {
        const LinearCall& call = calls[i];
        PassProduct& product = pass.products[i - begin];
        product.rows = call.rows;
        product.cols = call.cols;
        product.num_units = call.pitch / kUnit;
        while (1 << product.log_slices < call.num_slices) ++product.log_slices;
        product.log_grain = whole ? product.log_slices : 0;
        const int64_t grains = ceil_div(call.rows, rows) * call.num_slices >> product.log_grain;
        product.shares = Shares::of(grains, num_multiprocessors, first_extra);
        first_extra = (first_extra + grains) % num_multiprocessors;
        product.chain_first = static_cast<int32_t>(end - begin);
        product.chain_end = static_cast<int32_t>(chain_end - begin);
        product.first_part = static_cast<int32_t>(parts);
        product.first_arrival = static_cast<int32_t>(regions);
        parts += regions_of(count) * call.num_slices;
        product.bias = call.bias;
        product.out = call.out;
        product.rounds_out = call.rounds_out;
        product.out_stride = call.out_stride;
        product.epilogue = call.epilogue;
        pass.weights[i - begin] = tensor_map(call.weight, call.dtype, call.rows, call.pitch, static_cast<int>(rows));
        pass.tokens[i - begin] = tensor_map(call.x, call.dtype, num_tokens, call.pitch, static_cast<int>(tile_tokens));
      }
      regions += regions_of(count);
      end = chain_end;
    }
    pass.num_products = static_cast<int32_t>(end - begin);
    pass.num_tokens = static_cast<int32_t>(num_tokens);
    pass.parts = scratch.parts;
    pass.arrivals = scratch.arrivals;
    if (calls[0].dtype == DType::float16) {
      (small ? start<__half, 1> : start<__half, 2>)(stream, pass, num_multiprocessors, tile_tokens);
    } else {
      (small ? start<__nv_bfloat16, 1> : start<__nv_bfloat16, 2>)(stream, pass, num_multiprocessors, tile_tokens);
    }
    begin = end;
  }
}

}  // namespace cuda
}  // namespace parley

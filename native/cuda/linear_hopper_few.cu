// linear with 16-bit weights for up to 128 tokens on compute capability 9.0, at the memory's speed.
//
// One block a multiprocessor stays for a whole pass. A warp streams tiles of weights, a unit of 64 columns by 64 or 128 rows each, into a ring
// of stages in shared memory, and never pauses: what it reads does not depend on earlier kernels, so it begins before they are done. Each
// warpgroup multiplies 64 rows of every unit by all tokens (wgmma: the weights are the 64-row operand).
//
// Which block has which slices of which tiles is linear_hopper_plan.h's: a tile whose slices are all its own a block finishes; of others it leaves
// nodes of the tree as parts, which a second kernel adds. Who had which slice does not show in the bits.
#include <algorithm>

#include "cuda/hopper.h"
#include "cuda/launch.h"
#include "cuda/linear_call.h"
#include "cuda/linear_hopper_plan.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kTileRows = static_cast<int>(kLowTileRows);  // of a warpgroup
constexpr int kMostStages = 24;
constexpr int64_t kRingBytes = 200 * 1024;  // so much that no multiprocessor gets two blocks of a pass that starts early
constexpr int kUnit = static_cast<int>(kUnitCols);
constexpr int kRowBytes = 2 * kUnit;  // of a tile

struct PassProduct : ProductCut {
  int32_t rows;
  const float* bias;
  void* out;
  bool rounds_out;
  int64_t out_stride;
  Epilogue epilogue;
};

struct HopperPass {
  CUtensorMap weights[kMaxProducts];
  CUtensorMap tokens[kMaxProducts];
  PassProduct products[kMaxProducts];
  int32_t num_products;
  int32_t num_tokens;
  int32_t num_stages;
  float4* parts;
};

template <int kTokens, int kWarpgroups>
struct Shape {
  static constexpr int kRows = kTileRows * kWarpgroups;
  static constexpr int kStageBytes = (kRows + kTokens) * kRowBytes;
  static constexpr bool kShifts = kTokens >= 32 && kWarpgroups == 2;  // registers, from a warpgroup that only copies to those that multiply
  static constexpr int kMultiplying = 128 * kWarpgroups;  // threads
  static constexpr int kThreads = kMultiplying + (kShifts ? 128 : 32);
  static constexpr int kSums = kTokens / 8;  // of a thread, times 4
  static constexpr bool kHoldsFour = kSums <= 8;  // there are registers for sums of four slices that wait for the other four
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

// A thread's numbers of part `part`: [kSums][threads that multiply].
template <class S>
__device__ __forceinline__ float4* part_of(const HopperPass& pass, int part) {
  return pass.parts + static_cast<int64_t>(part) * (S::kSums * S::kMultiplying) + threadIdx.x;
}

template <class S>
__device__ __forceinline__ void leave(const HopperPass& pass, int part, const Sums<S::kSums>& sums) {
  float4* numbers = part_of<S>(pass, part);
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) __stcg(numbers + i * S::kMultiplying, make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]));
}

// The left child of a node, which this block has left, and the right one.
template <class S>
__device__ __forceinline__ void add_left_part(const HopperPass& pass, int part, Sums<S::kSums>& sums) {
  constexpr int kAtOnce = 4;
  const float4* numbers = part_of<S>(pass, part);
#pragma unroll
  for (int i = 0; i < S::kSums; i += kAtOnce) {
    float4 left[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) left[j] = __ldcg(numbers + (i + j) * S::kMultiplying);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      float(&sum)[4] = sums[i + j];
      sum[0] = left[j].x + sum[0], sum[1] = left[j].y + sum[1], sum[2] = left[j].z + sum[2], sum[3] = left[j].w + sum[3];
    }
  }
}

// Bias and epilogue of a warp's 16 rows, from `first_row` on, and their way to memory: over shared memory, so that neighbours write neighbours.
constexpr int kPatchTokens = 16;
constexpr int kPatchStride = 16 + 4;  // lanes with different tokens write different banks
template <class T, int n>
__device__ __forceinline__ void finish_rows(const PassProduct& product, int num_tokens, int first_row, const Sums<n>& sums, float* patch) {
  constexpr int kCount = n > 1 && n <= 8 ? kPatchTokens : 8;  // at a time; of 128 tokens there are no registers for more
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = first_row + lane % 16;
  const float bias = product.bias && row < product.rows ? product.bias[row] : 0.0f;
  const int64_t step = 2 * product.out_stride;
  int64_t place = lane / 16 * product.out_stride + row;
  const float* y = patch + lane / 16 * kPatchStride + lane % 16;
  int count = row < product.rows ? num_tokens - lane / 16 : 0;
#pragma unroll
  for (int first = 0; first < n; first += kCount / 8) {
    if (first * 8 >= num_tokens) break;
    __syncwarp();
#pragma unroll
    for (int i = first; i < first + kCount / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        patch[(8 * (i - first) + 2 * (lane % 4) + j % 2) * kPatchStride + 8 * (j / 2) + lane / 4] = sums[i][j];
      }
    }
    __syncwarp();
    const auto sum = [&](int token) { return product.bias ? y[token * kPatchStride] + bias : y[token * kPatchStride]; };
    if (product.epilogue == Epilogue::accumulate) {
      float before[kCount / 2];
      float* out = static_cast<float*>(product.out) + place;
      const float* from = out;
#pragma unroll
      for (int token = 0; token < kCount; token += 2, from += step) {
        if (token < count) before[token / 2] = *from;
      }
#pragma unroll
      for (int token = 0; token < kCount; token += 2, out += step) {
        if (token < count) *out = before[token / 2] + sum(token);
      }
    } else {
      int64_t index = place;
      for (int token = 0; token < kCount && token < count; token += 2, index += step) {
        finish<T>(product.out, product.rounds_out, index, sum(token), product.epilogue);
      }
    }
    place += kCount / 2 * step;
    count -= kCount;
  }
}

template <class S>
__device__ __forceinline__ void copy_sums(Sums<S::kSums>& to, const Sums<S::kSums>& from) {
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) to[i][j] = from[i][j];
  }
}
template <class S>
__device__ __forceinline__ void add_sums(Sums<S::kSums>& sums, const Sums<S::kSums>& left, const Sums<S::kSums>& right) {
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i][j] = left[i][j] + right[i][j];
  }
}

// A warpgroup's products, unit after unit.
template <class T, class S, int kTokens>
struct Multiplier {
  const unsigned char* ring;
  uint64_t* full;
  uint64_t* empty;
  int num_stages;
  Place place;

  // sums = those of a slice.
  __device__ __forceinline__ void multiply(Sums<S::kSums>& sums, const PassProduct& product, int slice) {
    float(&numbers)[kTokens / 2] = reinterpret_cast<float(&)[kTokens / 2]>(sums);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int begin = product.slice_begin(slice), end = product.slice_begin(slice + 1);
    int previous = -1;  // stage
    for (int unit = begin; unit < end; ++unit) {
      barrier_wait(full + place.stage, place.parity);
      const unsigned char* stage = ring + place.stage * S::kStageBytes;
      const uint64_t weights = wgmma_descriptor(stage + static_cast<int>(threadIdx.x) / 128 * kTileRows * kRowBytes);
      const uint64_t tokens = wgmma_descriptor(stage + S::kRows * kRowBytes);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma_k16<T, kTokens>(numbers, weights + 2 * k, tokens + 2 * k, unit > begin || k > 0);
      wgmma_commit();
      if (previous >= 0) {
        wgmma_wait<1>();
        __syncwarp();
        if (lane == 0) barrier_arrive(empty + previous);
      }
      previous = place.stage;
      place.advance(num_stages);
    }
    wgmma_wait<0>();
    wgmma_use(numbers);
    __syncwarp();
    if (previous >= 0 && lane == 0) barrier_arrive(empty + previous);
    if (begin == end) {
#pragma unroll
      for (float& number : numbers) number = 0.0f;
    }
  }
};

template <class T, class S, int kTokens>
__device__ __forceinline__ void multiply(const HopperPass& pass, const unsigned char* ring, uint64_t* full, uint64_t* empty, float* patch) {
  const int block = static_cast<int>(blockIdx.x);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  patch += warp * (kPatchTokens * kPatchStride);
  wait_for_previous_kernel();
  Multiplier<T, S, kTokens> multiplier{ring, full, empty, pass.num_stages, {}};
  for (int p = 0; p < pass.num_products; ++p) {
    const PassProduct& product = pass.products[p];
    const int num_slices = product.num_slices();
    const int begin = product.begin(block), end = product.begin(block + 1);
    for (int tile = begin >> product.log_slices; begin < end && tile * num_slices < end; ++tile) {
      const int first = max(begin - tile * num_slices, 0), last = min(end - tile * num_slices, num_slices);
      const int part = product.part_of(tile);
      // The largest nodes of the tree that are this block's own, one after the other. Sums of four slices for which there are no registers wait in
      // the place of the tile's first part.
      for (int slice = first, width; slice < last; slice += width) {
        width = product.node_width(slice, last);
        Sums<S::kSums> sums, even, two, four;  // the last three: left children of 1, 2, 4 slices, while they wait
        for (int i = 0; i < width; ++i) {
          if (i % 2 == 0 && width > 1) {
            multiplier.multiply(even, product, slice + i);
            ++i;
          }
          multiplier.multiply(sums, product, slice + i);
          if (width > 1) add_sums<S>(sums, even, sums);
          if (i % 4 == 1 && width > 2) copy_sums<S>(two, sums);
          if (i % 4 == 3) add_sums<S>(sums, two, sums);
          if (i == 3 && width == 8) {
            if constexpr (S::kHoldsFour) copy_sums<S>(four, sums);
            else leave<S>(pass, part, sums);
          }
          if (i == 7) {
            if constexpr (S::kHoldsFour) add_sums<S>(sums, four, sums);
            else add_left_part<S>(pass, part, sums);
          }
        }
        if (width == num_slices && !product.in_chain()) {
          finish_rows<T, S::kSums>(product, pass.num_tokens, tile * S::kRows + warp * 16, sums, patch);
        } else {
          leave<S>(pass, part + slice, sums);
        }
      }
    }
  }
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
    if constexpr (S::kShifts) take_registers<240>();
    multiply<T, S, kTokens>(pass, ring, full, empty, patch);
  } else {
    if constexpr (S::kShifts) give_up_registers<24>();
    if (threadIdx.x == 128 * kWarpgroups) stream<S>(pass, ring, full, empty);
  }
}

// Finishes the tiles of which blocks have left parts: adds the tree of linear_plan.h above these, product after product of a chain. A thread has
// four numbers, as in the parts: of tokens `token` and token + 1, rows `row` and row + 8. blockIdx.y: the first product of a chain.
constexpr int kFinishThreads = 256;
template <class T>
__global__ void __launch_bounds__(kFinishThreads) finish_parts(const __grid_constant__ HopperPass pass, int tile_threads, int num_sums) {
  start_next_kernel(pass.num_tokens);
  const PassProduct& chain = pass.products[blockIdx.y];
  const int index = static_cast<int>(blockIdx.x) * kFinishThreads + static_cast<int>(threadIdx.x);
  const int thread = index % tile_threads, i = index / tile_threads % num_sums, tile = index / tile_threads / num_sums;
  const int row = tile * (tile_threads / 2) + thread / 32 * 16 + thread % 32 / 4;
  const int token = 8 * i + 2 * (thread % 4);
  const bool is_left = chain.chain_first == static_cast<int>(blockIdx.y) && row < chain.rows && token < pass.num_tokens &&
                       (chain.in_chain() || chain.cuts(tile) != 0);
  wait_for_previous_kernel();
  if (!is_left) return;
  // The third and fourth number are of the second row.
  const auto exists = [&](int j) { return token + j % 2 < pass.num_tokens && row + j / 2 * 8 < chain.rows; };
  const auto place = [&](int j) { return (token + j % 2) * chain.out_stride + row + j / 2 * 8; };
  float numbers[4] = {};
  if (chain.epilogue == Epilogue::accumulate) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (exists(j)) numbers[j] = static_cast<const float*>(chain.out)[place(j)];
    }
  }
  for (int p = chain.chain_first; p < chain.chain_end; ++p) {
    const PassProduct& product = pass.products[p];
    const unsigned left = product.left_nodes(tile);
    const int64_t part = product.part_of(tile);
    float4 nodes[kNumSlices];
#pragma unroll
    for (int s = 0; s < kNumSlices; ++s) {
      if (left >> s & 1) nodes[s] = __ldcg(pass.parts + ((part + s) * num_sums + i) * tile_threads + thread);
    }
#pragma unroll
    for (int width = 1; width < kNumSlices; width *= 2) {
#pragma unroll
      for (int s = 0; s < kNumSlices; s += 2 * width) {
        if (left >> (s + width) & 1) nodes[s] = add(nodes[s], nodes[s + width]);
      }
    }
    const float sums[4] = {nodes[0].x, nodes[0].y, nodes[0].z, nodes[0].w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float sum = product.bias && exists(j) ? sums[j] + product.bias[row + j / 2 * 8] : sums[j];
      finish<T>(numbers, false, j, sum, product.epilogue);
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (exists(j)) finish<T>(chain.out, chain.rounds_out, place(j), numbers[j], Epilogue::store);
  }
}

template <class T, int kTokens, int kWarpgroups>
void start(cudaStream_t stream, HopperPass& pass, int64_t num_blocks) {
  using S = Shape<kTokens, kWarpgroups>;
  pass.num_stages = static_cast<int32_t>(std::min<int64_t>(kMostStages, kRingBytes / S::kStageBytes));
  launch(hopper_few_kernel<T, kTokens, kWarpgroups>, dim3(static_cast<unsigned>(num_blocks)), dim3(S::kThreads),
         int64_t{pass.num_stages} * S::kStageBytes, stream, pass);
}

template <class T, int kTokens>
void start(cudaStream_t stream, HopperPass& pass, int64_t num_blocks, int64_t rows) {
  if constexpr (kTokens <= kMostLowTileTokens) {
    if (rows == kTileRows) return start<T, kTokens, 1>(stream, pass, num_blocks);
  }
  start<T, kTokens, 2>(stream, pass, num_blocks);
}

template <class T>
void start(cudaStream_t stream, HopperPass& pass, int64_t num_blocks, int64_t rows, int64_t tokens) {
  switch (tokens) {
    case 8: return start<T, 8>(stream, pass, num_blocks, rows);
    case 16: return start<T, 16>(stream, pass, num_blocks, rows);
    case 32: return start<T, 32>(stream, pass, num_blocks, rows);
    case 64: return start<T, 64>(stream, pass, num_blocks, rows);
    default: return start<T, 128>(stream, pass, num_blocks, rows);
  }
}

}  // namespace

void linear_hopper_few(cudaStream_t stream, Span<const LinearCall> calls, const HopperScratch& scratch, PassCuts& cuts, int64_t num_multiprocessors) {
  const int64_t tile_tokens = hopper_tile_tokens(calls[0].tokens), num_tokens = calls[0].tokens;
  ProductShape shapes[kMaxProducts];
  for (int64_t i = 0; i < calls.size; ++i) {
    shapes[i] = {calls[i].rows, calls[i].pitch, calls[i].num_slices, i > 0 && calls[i].out == calls[i - 1].out};
  }
  const PassCut cut = cuts.of({shapes, calls.size}, tile_tokens, num_multiprocessors);
  const bool half = calls[0].dtype == DType::float16;

  for (int64_t done = 0; done < calls.size;) {
    const PassPlan plan = plan_pass({shapes + done, calls.size - done}, cut, num_multiprocessors, scratch.part_numbers / (cut.rows * tile_tokens));
    HopperPass pass{};
    for (int64_t i = 0; i < plan.num_products; ++i) {
      const LinearCall& call = calls[done + i];
      pass.products[i] = {plan.products[i], call.rows, call.bias, call.out, call.rounds_out, call.out_stride, call.epilogue};
      pass.weights[i] = tensor_map(call.weight, call.dtype, call.rows, call.pitch, static_cast<int>(cut.rows));
      pass.tokens[i] = tensor_map(call.x, call.dtype, num_tokens, call.pitch, static_cast<int>(tile_tokens));
    }
    pass.num_products = static_cast<int32_t>(plan.num_products);
    pass.num_tokens = static_cast<int32_t>(num_tokens);
    pass.parts = scratch.parts;
    (half ? start<__half> : start<__nv_bfloat16>)(stream, pass, num_multiprocessors, cut.rows, tile_tokens);
    if (plan.leaves_parts) {
      const int64_t threads = plan.most_tiles * cut.rows * tile_tokens / 4;
      launch(half ? finish_parts<__half> : finish_parts<__nv_bfloat16>,
             dim3(static_cast<unsigned>(ceil_div(threads, int64_t{kFinishThreads})), static_cast<unsigned>(plan.num_products)),
             dim3(kFinishThreads), 0, stream, pass, static_cast<int>(2 * cut.rows), static_cast<int>(tile_tokens / 8));
    }
    done += plan.num_products;
  }
}

}  // namespace cuda
}  // namespace parley

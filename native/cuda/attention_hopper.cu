// Attention of tiles of more than 16 query pairs on compute capability 9.0: a prompt's rows, of heads of 64 to 128 dims.
//
// A warp loads blocks of keys and values, up to kStages ahead. Two warpgroups have 64 pairs each, with queries and weights in registers, and go each
// at its own pace. The tensor cores multiply the keys of the next block before the values of this one, so that a warpgroup makes the next weights
// while they are at the values ("FlashAttention-3", Shah et al., 2024, algorithm 2).
//
// The rules of attention_tile.h hold, and so do the bits: wgmma is taken to add 16 products as mma does, which programs/hopper.cu checks. What no
// pair of the tile sees is not zeros here, but whatever lies in the page; if it is not finite, multiply_seen_values keeps it out.
#include "cuda/attention_tile.h"
#include "cuda/hopper.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kGroups = 2;  // warpgroups that have pairs
constexpr int kGroupThreads = 128;
constexpr int kGroupPairs = 64;
constexpr int kStages = 4;  // blocks whose keys and values are under way

// A block's keys or values as TMA and wgmma have them: tiles of 64 dims, one behind the other.
template <int kHeadDim, int kKeys>
struct TensorRows {
  static constexpr int kUnit = 64;
  static constexpr int kTiles = (kHeadDim + kUnit - 1) / kUnit;
  static constexpr int kTileBytes = kKeys * kUnit * 2;
  static constexpr int numbers(int rows) { return kTiles * rows * kUnit; }
  // These as in SharedRows.
  static __device__ __forceinline__ int at(int row, int piece) { return (piece / 8 * kKeys + row) * kUnit + (piece % 8 ^ (row & 7)) * 8; }
  static constexpr int flip(int pieces) { return pieces % 8 * 16; }
  static constexpr int offset(int rows, int pieces) { return rows * kUnit * 2 + pieces / 8 * kTileBytes; }
};

// The stage of the next block, and the parity of its barriers' phase.
struct Ring {
  unsigned block = 0;
  __device__ __forceinline__ int stage() const { return static_cast<int>(block % kStages); }
  __device__ __forceinline__ uint32_t phase() const { return block / kStages % 2; }
  __device__ __forceinline__ void next() { ++block; }
};

// Of keys or of values.
struct Barriers {
  uint64_t full[kStages], empty[kStages];
};

// descriptor + sixteenths, in the 32 bits that hold the address.
__device__ __forceinline__ uint64_t further(uint64_t descriptor, int sixteenths) {
  return (descriptor & ~uint64_t{0xffffffff}) | (static_cast<uint32_t>(descriptor) + static_cast<uint32_t>(sixteenths));
}

// What all lanes have, so that the compiler knows it.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(0xffffffffu, x, 0); }

template <class Number, int kHeadDim>
using HopperBase = Tile<Number, kHeadDim, kGroups * kGroupThreads / 32, 1, 1, kStages, TensorRows<kHeadDim, 64>>;

template <class Number, int kHeadDim>
struct HopperTile : HopperBase<Number, kHeadDim> {
  using Base = HopperBase<Number, kHeadDim>;
  using Rows = TensorRows<kHeadDim, 64>;
  using typename Base::Sight;
  using typename Base::Sums;
  using Base::call;
  using Base::kKeys;
  using Base::kKeyTiles;
  using Base::kStageNumbers;
  using Base::kThreads;
  using Base::lane;
  using Base::task;
  static_assert(kKeys == 64, "");

  // Sums of earlier splits, behind what Base has: [kValues / 4][kThreads]; the barriers.
  static constexpr int kValues = kHeadDim / 2;
  static constexpr int64_t kBarriersAt = Base::kSharedBytes + int64_t{4} * kValues * kThreads;
  static constexpr int64_t kSharedBytes = kBarriersAt + 2 * sizeof(Barriers);
  static_assert(kSharedBytes <= kMaxHopperSharedBytes, "");

  // Registers of a thread, of the warpgroup that loads and of the others: no more than the 64 Ki that there are.
  static constexpr int kLoadingRegisters = 40;
  static constexpr int kRegisters = 232;
  static_assert((kRegisters * kGroups + kLoadingRegisters) * kGroupThreads <= 65536, "");

  using Base::Base;

  __device__ __forceinline__ int first_block() const { return uniform(task.first_key / kKeys); }
  __device__ __forceinline__ int last_block() const { return uniform((task.last_key + kKeys - 1) / kKeys); }

  // The warp that loads. A lane's part of a block is a page's keys in one tile of 64 dims.
  __device__ __forceinline__ void load(const CUtensorMap& key_map, const CUtensorMap& value_map, Barriers& key_barriers,
                                       Barriers& value_barriers, Ring& ring) const {
    constexpr int kPage = kPageSize, kPages = kKeys / kPage;
    static_assert(kPages * Rows::kTiles <= 32, "");
    const bool loads = lane < kPages * Rows::kTiles;
    const int part = lane / Rows::kTiles % kPages, tile = lane % Rows::kTiles;
    const int offset = tile * (Rows::kTileBytes / 2) + part * kPage * Rows::kUnit;
    const int32_t* pages = call.page_table.row(task.sequence);
    const int first_page = task.first_key / kPage, last_page = (task.last_key - 1) / kPage;
    // In place of pages that the task does not see, those beside them.
    const auto page_of = [&](int block) { return pages[min(max(block * kPages + part, first_page), last_page)]; };
    int next_page = page_of(first_block());
    for (int block = first_block(); block < last_block(); ++block, ring.next()) {
      const int row = static_cast<int>(kv_index(next_page, this->kv_head, 0, 0, call.num_kv_heads, 1));
      next_page = page_of(block + 1);  // memory is slow
      const auto request = [&](Number* stages, const CUtensorMap& map, Barriers& barriers) {
        barrier_wait(&barriers.empty[ring.stage()], ring.phase() ^ 1);
        if (lane == 0) barrier_expect(&barriers.full[ring.stage()], 2 * kStageNumbers);
        __syncwarp();
        if (loads) tensor_load(stages + ring.stage() * kStageNumbers + offset, map, tile * Rows::kUnit, row, &barriers.full[ring.stage()]);
      };
      request(this->keys, key_map, key_barriers);
      request(this->values, value_map, value_barriers);
    }
  }

  // The warp's queries as A of mma. pair: that of lanes 0-15.
  __device__ __forceinline__ void load_queries(uint32_t (&queries)[kHeadDim / 16][4], int pair) const {
    const int known = min(pair, task.num_pairs - 1);
    const int row = this->row_of(known), head = this->head_of(known);
    float4 fours[16];  // all at once: memory is slow
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float* query = call.qkv.row(__shfl_sync(0xffffffffu, row, i)) + static_cast<int64_t>(__shfl_sync(0xffffffffu, head, i)) * call.head_dim;
      fours[i] = make_float4(0, 0, 0, 0);
      if (this->row_warp * 16 + i >= task.num_pairs || 4 * lane >= call.head_dim) continue;
      query += 4 * lane;
      fours[i] = call.whole_pieces ? *reinterpret_cast<const float4*>(query) : make_float4(query[0], query[1], query[2], query[3]);
    }
    using QueryRows = typename Base::Rows;
    Number* const rows = this->queries;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (4 * lane >= kHeadDim) continue;
      uint2 packed;
      packed.x = pack_pair<Number>(fours[i].x, fours[i].y);
      packed.y = pack_pair<Number>(fours[i].z, fours[i].w);
      *reinterpret_cast<uint2*>(rows + QueryRows::at(this->row_warp * 16 + i, lane / 2) + lane % 2 * 4) = packed;
    }
    __syncwarp();
    const Number* from = rows + QueryRows::at(this->row_warp * 16 + lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k) ldmatrix_x4(queries[k], from, QueryRows::flip(2 * k), QueryRows::offset(0, 2 * k));
  }

  // The warpgroups.
  __device__ __forceinline__ void attend(Barriers& key_barriers, Barriers& value_barriers, Ring& ring) {
    // Lanes 0-15: the warp's pairs. 16 and 17: the group's first and last. Of a set of pairs the first sees least of what lies ahead, the last
    // least of what lies behind.
    const int warp_pair = this->row_warp * 16, group_pair = warp_pair / kGroupPairs * kGroupPairs;
    const int pair = lane < 16 ? warp_pair + lane : lane == 16 ? group_pair : group_pair + kGroupPairs - 1;
    const Sight sight = this->sight_of(pair);
    const auto of_lane = [](int number, int from) { return __shfl_sync(0xffffffffu, number, from); };
    const int lowest_last = of_lane(sight.last_key, 0), highest_first = of_lane(sight.first_key, 15);
    const int group_lowest_last = of_lane(sight.last_key, 16), group_highest_first = of_lane(sight.first_key, 17);
    const int begin = max(first_block(), of_lane(sight.first_key, 16) / kKeys);
    const int end = group_pair < task.num_pairs ? min(last_block(), (of_lane(sight.last_key, 17) + kKeys - 1) / kKeys) : begin;
    if (lane < 16) this->sights[pair] = sight;
    uint32_t queries[kHeadDim / 16][4];
    load_queries(queries, pair);

    const auto release = [&](uint64_t* empty) {
      __syncwarp();
      if (lane == 0) barrier_arrive(empty);
    };
    // Blocks that the group does not see.
    const auto skip = [&](int until, int block) {
      for (; block < until; ++block, ring.next()) {
        barrier_wait(&key_barriers.full[ring.stage()], ring.phase());
        release(&key_barriers.empty[ring.stage()]);
        barrier_wait(&value_barriers.full[ring.stage()], ring.phase());
        release(&value_barriers.empty[ring.stage()]);
      }
    };

    Sums sums;
    Base::clear(sums);
    auto& values = reinterpret_cast<float(&)[kValues]>(sums.values);
    float all_top[2] = {-INFINITY, -INFINITY}, all_total[2] = {0, 0};
    float4* const all = reinterpret_cast<float4*>(dynamic_shared<char>() + Base::kSharedBytes) + threadIdx.x;
    bool has_all = false;

    float scores[kKeyTiles][4];
    auto& flat_scores = reinterpret_cast<float(&)[kKeyTiles * 4]>(scores);
    uint32_t weights[kKeyTiles][2];
    auto& flat_weights = reinterpret_cast<uint32_t(&)[kKeyTiles * 2]>(weights);
    float next_top[2], shrink[2];
    const bool only_scales = this->only_scales();
    const float scale = call.scale * Base::kLog2e;
    // scores = those of the block in stage `stage`, under way.
    const auto multiply_keys = [&](int stage) {
      const uint64_t block = wgmma_descriptor(this->keys + stage * kStageNumbers);
      wgmma_use(flat_scores);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kHeadDim / 16; ++k) {
        wgmma_k16<Number, kKeys, false>(flat_scores, queries[k], further(block, k / 4 * (Rows::kTileBytes / 16) + k % 4 * 2), k > 0);
      }
      wgmma_commit();
    };
    // Scores → weights; next_top and shrink with them.
    const auto weigh = [&](int block) {
      const int first = block * kKeys;
      if (only_scales) {
#pragma unroll
        for (float& score : flat_scores) score *= scale;
      } else {
        this->apply_rule(scores, first);
      }
      if (first < highest_first || first + kKeys > lowest_last) this->hide_unseen(scores, first);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float top = -INFINITY;
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) top = fmaxf(top, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        const float before = first % kSplitKeys == 0 ? -INFINITY : sums.top[r];
        next_top[r] = fmaxf(before, top);
        const float base = next_top[r] == -INFINITY ? 0 : next_top[r];
        shrink[r] = exp2_approximate(before - base);
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
          scores[n][2 * r] = exp2_approximate(scores[n][2 * r] - base);
          scores[n][2 * r + 1] = exp2_approximate(scores[n][2 * r + 1] - base);
        }
      }
    };
    // The split's sums join those of the splits before it; the last ones' stay in `sums`.
    const auto merge_split = [&](bool is_last) {
      const MergeFactors factors[2] = {{all_top[0], sums.top[0]}, {all_top[1], sums.top[1]}};
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        all_top[r] = factors[r].top;
        all_total[r] = factors[r].merged(all_total[r], sums.total[r]);
        sums.total[r] = 0;
      }
#pragma unroll
      for (int i = 0; i < kValues; i += 4) {
        float4& kept = all[i / 4 * kThreads];
        const float4 old = has_all ? kept : make_float4(0, 0, 0, 0);
        const float4 merged = make_float4(factors[0].merged(old.x, values[i]), factors[0].merged(old.y, values[i + 1]),
                                          factors[1].merged(old.z, values[i + 2]), factors[1].merged(old.w, values[i + 3]));
        if (!is_last) kept = merged;
        values[i] = is_last ? merged.x : 0, values[i + 1] = is_last ? merged.y : 0;
        values[i + 2] = is_last ? merged.z : 0, values[i + 3] = is_last ? merged.w : 0;
      }
      has_all = true;
    };
    // Of the block whose scores were weighed.
    const auto pack_weights = [&] {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int r = 0; r < 2; ++r) weights[n][r] = pack_pair<Number>(scores[n][2 * r], scores[n][2 * r + 1]);
      }
    };
    const auto shrink_sums = [&] {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        sums.top[r] = next_top[r];
#pragma unroll
        for (int i = 2 * r; i < kValues; i += 4) {
          values[i] *= shrink[r];
          values[i + 1] *= shrink[r];
        }
        sums.total[r] *= shrink[r];
      }
    };
    // Waits for the block's values. True: they are in the sums.
    const auto has_multiplied_special = [&](int first, int stage, uint32_t phase) {
      barrier_wait(&value_barriers.full[stage], phase);
      const Number* block = this->values + stage * kStageNumbers;
      // Alike in all warps of the group: each looks at all values. By a vote, so that the compiler knows that lanes do not part.
      const bool unseen = first < group_highest_first || first + kKeys > group_lowest_last;
      if (!__any_sync(0xffffffffu, unseen) || !this->has_special(block, 0)) return false;
      shrink_sums();
      shrink[0] = shrink[1] = 1;
      this->multiply_seen_values(sums, weights, block, 0, first);
      return true;
    };
    // sums += weights * values of the block, under way.
    const auto multiply_values = [&](int stage) {
      const uint64_t turned = wgmma_turned_descriptor(this->values + stage * kStageNumbers, Rows::kTileBytes);
      wgmma_use(values);
      wgmma_use(flat_weights);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kKeys / 16; ++k) {
        const uint32_t a[4] = {weights[2 * k][0], weights[2 * k][1], weights[2 * k + 1][0], weights[2 * k + 1][1]};
        wgmma_k16<Number, kHeadDim, true>(values, a, further(turned, k * 128));
      }
      wgmma_commit();
    };

    // The same of the sum of the weights, at once.
    const auto add_weights = [&] {
      const uint32_t one = pack_pair<Number>(1, 1);
      const uint32_t ones[2] = {one, one};
      float total[4] = {sums.total[0], 0, sums.total[1], 0};
#pragma unroll
      for (int k = 0; k < kKeys / 16; ++k) {
        const uint32_t a[4] = {weights[2 * k][0], weights[2 * k][1], weights[2 * k + 1][0], weights[2 * k + 1][1]};
        mma_m16n8k16<Number>(total, a, ones);
      }
      sums.total[0] = total[0];
      sums.total[1] = total[2];
    };
    // Behind the multiplication of a block's values.
    const auto finish = [&](int block, int stage, bool special, bool is_last) {
      release(&value_barriers.empty[stage]);
      if (!special) add_weights();
      if (is_last || (block + 1) * kKeys % kSplitKeys == 0) merge_split(is_last);
    };

    skip(begin, first_block());
    if (begin < end) {
      barrier_wait(&key_barriers.full[ring.stage()], ring.phase());
      multiply_keys(ring.stage());
      wgmma_wait<0>();
      wgmma_use(flat_scores);
      release(&key_barriers.empty[ring.stage()]);
      weigh(begin);
      int stage = 0;  // of the block before
      bool special = false;
      for (int block = begin; block + 1 < end; ++block) {
        // For the block before. Where its own turn ends, the compiler would move the wait before the making of weights.
        wgmma_wait<0>();
        wgmma_use(values);
        if (block > begin) finish(block - 1, stage, special, false);
        pack_weights();
        stage = ring.stage();
        special = has_multiplied_special(block * kKeys, stage, ring.phase());
        ring.next();
        barrier_wait(&key_barriers.full[ring.stage()], ring.phase());
        multiply_keys(ring.stage());
        shrink_sums();
        if (!special) {
          multiply_values(stage);
        } else {
          wgmma_commit();
        }
        wgmma_wait<1>();
        wgmma_use(flat_scores);
        release(&key_barriers.empty[ring.stage()]);
        weigh(block + 1);
      }
      wgmma_wait<0>();
      wgmma_use(values);
      if (end - 1 > begin) finish(end - 2, stage, special, false);
      pack_weights();
      special = has_multiplied_special((end - 1) * kKeys, ring.stage(), ring.phase());
      shrink_sums();
      if (!special) multiply_values(ring.stage());
      wgmma_wait<0>();
      wgmma_use(values);
      finish(end - 1, ring.stage(), special, true);
      ring.next();
    }
    skip(last_block(), max(begin, end));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sums.top[r] = all_top[r];
      sums.total[r] = all_total[r];
    }
    this->store(sums);
    const auto sync = [] { sync_group(1, kThreads); };
    if (task.num_splits > 1) this->merge_partials(sync);
  }
};

// Tiles: the longest tasks of all heads, then the next ones. The blocks take them back and forth, so that who had a longer one gets a shorter one.
template <class Tiles>
__global__ void __launch_bounds__(Tiles::kThreads + kGroupThreads, 1)
    attend_hopper_tiles(const __grid_constant__ CUtensorMap keys, const __grid_constant__ CUtensorMap values, const __grid_constant__ AttentionCall call) {
  Barriers* const all_barriers = reinterpret_cast<Barriers*>(dynamic_shared<char>() + Tiles::kBarriersAt);
  Barriers &key_barriers = all_barriers[0], &value_barriers = all_barriers[1];
  start_next_kernel(call.qkv.rows);
  const PlanHeader plan = *call.plan;
  if (threadIdx.x == 0) {
    for (Barriers* barriers : {&key_barriers, &value_barriers}) {
      for (int i = 0; i < kStages; ++i) barrier_init(&barriers->full[i], 1), barrier_init(&barriers->empty[i], Tiles::kThreads / 32);
    }
    barrier_init_fence();
  }
  __syncthreads();
  wait_for_previous_kernel();
  Ring ring;
  const auto for_tiles = [&](const auto& work) {
    const int num_tiles = uniform(plan.num_wide * call.num_kv_heads), blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    for (int first = 0; first < num_tiles; first += blocks) {
      const int index = first + (first / blocks % 2 == 0 ? block : blocks - 1 - block);
      if (index >= num_tiles) continue;
      const AttentionTask task = plan.tasks[plan.num_narrow + index / call.num_kv_heads];
      Tiles tile(call, task, index % call.num_kv_heads);
      work(tile);
    }
  };
  if (threadIdx.x >= Tiles::kThreads) {
    give_up_registers<Tiles::kLoadingRegisters>();
    if (threadIdx.x < Tiles::kThreads + 32) for_tiles([&](Tiles& tile) { tile.load(keys, values, key_barriers, value_barriers, ring); });
  } else {
    take_registers<Tiles::kRegisters>();
    for_tiles([&](Tiles& tile) { tile.attend(key_barriers, value_barriers, ring); });
  }
}

template <class Number, int kHeadDim>
void start(const AttentionCall& call, DType dtype, int64_t num_pages, int64_t blocks, cudaStream_t stream) {
  using Tiles = HopperTile<Number, kHeadDim>;
  const auto map = [&](const void* numbers) {
    const int64_t rows = kv_index(num_pages, 0, 0, 0, call.num_kv_heads, 1);
    check(rows <= INT32_MAX, "attention on CUDA: ", rows, " keys of all pages and heads, expected at most ", INT32_MAX);
    return tensor_map(numbers, dtype, rows, call.head_dim, static_cast<int>(kPageSize));
  };
  launch(attend_hopper_tiles<Tiles>, dim3(static_cast<unsigned>(blocks)), dim3(Tiles::kThreads + kGroupThreads), Tiles::kSharedBytes,
         stream, map(call.keys), map(call.values), call);
}

}  // namespace

int64_t hopper_pairs(int64_t head_dim) { return head_dim % 8 == 0 && head_dim >= 64 && head_dim <= 128 ? kGroups * kGroupPairs : 0; }

void attend_hopper(const AttentionCall& call, DType dtype, int64_t num_pages, int64_t blocks, cudaStream_t stream) {
  with_tile_type(dtype, call.head_dim, [&](auto* number, auto head_dim) {
    constexpr int kHeadDim = decltype(head_dim)::value;
    if constexpr (kHeadDim >= 64 && kHeadDim <= 128) start<std::remove_pointer_t<decltype(number)>, kHeadDim>(call, dtype, num_pages, blocks, stream);
  });
}

}  // namespace cuda
}  // namespace parley

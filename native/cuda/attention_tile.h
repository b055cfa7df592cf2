// Attention of a tile of query pairs (attention_plan.h) on tensor cores: the one body of the decode and of the prefill kernel, and what the prefill
// kernel for compute capability 9.0 (attention_hopper.cu) shares with them.
//
// Flash attention (Dao, 2023, "FlashAttention-2", algorithm 1) over blocks of kKeys keys, with FlashDecoding's splits: within a split
// the running largest exponent, sum and weighted values are rescaled from block to block; splits are merged in order (attention_merge.h).
// A step of a thread block is one or several blocks of keys: with several, as the decode kernel has them, all warps multiply keys at once,
// and wait for each other once a step.
//
// A pair's bits follow from its own query, keys and values alone, whatever tile it is in, whatever the tile's shape, and whether one
// block has all splits or each split its own:
//   - a score is mma's sum over the head's dims, 16 at a time in order; a weight is rounded to the keys' type;
//   - a sum of weighted values, and the sum of the weights (mma with ones), is mma's over a block's keys, 16 at a time in order;
//   - blocks and splits start at multiples of kKeys and kSplitKeys; one that a pair does not see changes nothing: its weights are 0, so
//     that 1 * x + 0 is computed;
//   - what a pair does not see never reaches it, not even an infinite value: see multiply_seen_values.
// Here mma is taken to compute each row of D from its row of A alone, and a product with 0 not to change a sum. Both hold in the
// emulator; they are how every GPU so far behaves, and test/gpu checks it where there is one.
#pragma once

#include <cmath>
#include <type_traits>

#include "cuda/attention_call.h"
#include "cuda/attention_merge.h"
#include "cuda/kv_layout.h"
#include "cuda/launch.h"
#include "cuda/mma.h"
#include "cuda/numbers.h"

namespace parley {
namespace cuda {

// Rows of `columns` 16-bit numbers in shared memory, in pieces of 16 bytes, placed so that the 8 rows of an ldmatrix lie in different banks.
template <int columns>
struct SharedRows {
  static constexpr int kPieces = columns / 8;
  static constexpr bool kSwizzled = kPieces % 8 == 0;
  static constexpr int kPitch = kSwizzled ? kPieces : kPieces | 1;
  static constexpr int numbers(int rows) { return rows * kPitch * 8; }

  // Where piece `piece` of `row` starts, in numbers.
  static __device__ __forceinline__ int at(int row, int piece) { return (row * kPitch + (kSwizzled ? piece ^ (row & 7) : piece)) * 8; }

  // For ldmatrix: piece `piece + pieces` of `row + rows` starts flip(pieces) and offset(rows, pieces) from at(row, piece), for multiples of 8
  // rows and for pieces that have no bit in common with `piece`. What holds the rows is aligned to 128 bytes.
  static constexpr int flip(int pieces) { return kSwizzled ? pieces % 8 * 16 : 0; }
  static constexpr int offset(int rows, int pieces) { return (rows * kPitch + (kSwizzled ? pieces / 8 * 8 : pieces)) * 16; }
};

// The smallest power of two that is at least `count`.
constexpr int power_of_two(int count) { return count <= 1 ? 1 : 2 * power_of_two((count + 1) / 2); }

// Warps stand in kRowWarps x kColumnWarps: those of a row have the same 16 pairs, and share out the keys of a step for its scores and then
// the dims of its values. kHeadDim: a multiple of 16, at least the heads' own. kStages: steps whose keys and values are under way. KeyRows: how
// keys and values lie in shared memory.
template <class Number, int kHeadDim, int kRowWarps, int kColumnWarps, int kStepBlocks, int kStages, class KeyRows = SharedRows<kHeadDim>>
struct Tile {
  static constexpr int kThreads = 32 * kRowWarps * kColumnWarps;
  static constexpr int kPairs = 16 * kRowWarps;
  static constexpr int kKeys = kHeadDim <= 128 ? 64 : 32;  // of a block: the same in every tile of these heads
  static constexpr int kStepKeys = kKeys * kStepBlocks;
  static constexpr int kWarpKeys = kStepKeys / kColumnWarps;  // all of one block
  static constexpr int kBlockWarps = kKeys / kWarpKeys;
  static constexpr int kKeyTiles = kWarpKeys / 8;
  static constexpr int kDimTiles = (kHeadDim / 16 + kColumnWarps - 1) / kColumnWarps;  // of 16 dims; the last may be one too many
  static_assert(kSplitKeys % kStepKeys == 0 && kKeys % kWarpKeys == 0 && kWarpKeys % 8 == 0, "a split is whole steps, a warp has whole tiles of a block");

  using Rows = SharedRows<kHeadDim>;
  using WeightRows = SharedRows<kStepKeys>;

  // Shared memory: queries, keys and values of kStages steps, the row warps' weights and maxima if several warps need them, what each
  // pair sees.
  static constexpr int kQueryNumbers = Rows::numbers(kPairs);
  static constexpr int kStageNumbers = KeyRows::numbers(kStepKeys);
  static constexpr int kWeightNumbers = kColumnWarps > 1 ? WeightRows::numbers(kPairs) : 0;
  static constexpr int kMaxima = kColumnWarps > 1 ? kPairs * kColumnWarps : 0;
  static constexpr int64_t kSharedBytes = 2 * (kQueryNumbers + 2 * kStages * kStageNumbers + kWeightNumbers) + 4 * kMaxima + 16 * (kPairs + 1);

  // Threads that copy a row of keys or values, a piece each if there is one; rounds until all rows of a step are copied.
  static constexpr int kRowThreads = power_of_two(Rows::kPieces);
  static constexpr int kRoundRows = kThreads / kRowThreads;
  static constexpr int kRounds = kStepKeys / kRoundRows;

  // The keys that a pair sees, and where key 0 stands in its row of the bias table.
  struct Sight {
    int32_t first_key;
    int32_t last_key;
    int32_t bias_column;
    int32_t head;
  };

  // Of two rows of D, lane / 4 and lane / 4 + 8: what is known of the keys so far.
  struct Sums {
    float top[2];
    float total[2];
    float values[kDimTiles][2][4];
  };

  const AttentionCall& call;
  const AttentionTask& task;
  const int kv_head;
  int lane = static_cast<int>(threadIdx.x) % 32;
  const int row_warp = static_cast<int>(threadIdx.x) / 32 / kColumnWarps;
  const int column_warp = static_cast<int>(threadIdx.x) / 32 % kColumnWarps;
  Number* const queries = dynamic_shared<Number>();
  Number* const keys = queries + kQueryNumbers;
  Number* const values = keys + kStages * kStageNumbers;
  Number* const weights = values + kStages * kStageNumbers;
  Sight* const sights = reinterpret_cast<Sight*>(weights + kWeightNumbers);
  int32_t* const is_last = reinterpret_cast<int32_t*>(sights + kPairs);
  float* const maxima = reinterpret_cast<float*>(sights + kPairs + 1);  // [kColumnWarps, kPairs]

  __device__ __forceinline__ Tile(const AttentionCall& call, const AttentionTask& task, int kv_head)
      : call(call), task(task), kv_head(kv_head) {}

  // Makes the compiler compute anew what depends on `index`, which is below `limit`, a power of two. It would keep all addresses from block to
  // block, and then has too few registers for the sums.
  static __device__ __forceinline__ void forget(int& index, int limit) {
    asm volatile("" : "+r"(index));
    index &= limit - 1;
  }

  __device__ __forceinline__ int row_of(int pair) const { return task.row + (task.first_pair + pair) / call.heads_per_kv; }
  __device__ __forceinline__ int head_of(int pair) const {
    return kv_head * call.heads_per_kv + (task.first_pair + pair) % call.heads_per_kv;
  }

  // Pairs behind the last see what the last one sees.
  __device__ __forceinline__ Sight sight_of(int pair) const {
    const int known = min(pair, task.num_pairs - 1);
    const int position = call.positions[row_of(known)];
    const int columns = static_cast<int>(call.bias.cols);
    Sight sight;
    sight.first_key = call.window > 0 ? max(position - call.window + 1, 0) : 0;
    sight.last_key = call.num_keys > 0 ? call.num_keys : position + 1;
    sight.bias_column = call.bias_by_key ? 0 : (call.num_keys > 0 ? columns / 2 : columns - 1) - position;
    sight.head = head_of(known);
    return sight;
  }

  // Pairs behind the last are zeros.
  __device__ __forceinline__ void load_queries() const {
    int thread = static_cast<int>(threadIdx.x);
    forget(thread, kThreads);
    constexpr int kAll = kPairs * Rows::kPieces, kAtOnce = kAll < 4 * kThreads ? (kAll + kThreads - 1) / kThreads : 4;
#pragma unroll 1
    for (int first = thread; first < kAll; first += kAtOnce * kThreads) {
      float numbers[kAtOnce][8];  // several pieces' at once: memory is slow
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int pair = (first + i * kThreads) / Rows::kPieces, dim = (first + i * kThreads) % Rows::kPieces * 8;
        const int dims = pair < task.num_pairs ? call.head_dim - dim : 0;
        const float* query = call.qkv.row(0);
        if (dims > 0) query = call.qkv.row(row_of(pair)) + static_cast<int64_t>(head_of(pair)) * call.head_dim + dim;
        if (call.whole_pieces) {
          const float4 zeros = make_float4(0, 0, 0, 0);
          const float4 low = dims > 0 ? *reinterpret_cast<const float4*>(query) : zeros;
          const float4 high = dims > 0 ? *reinterpret_cast<const float4*>(query + 4) : zeros;
          numbers[i][0] = low.x, numbers[i][1] = low.y, numbers[i][2] = low.z, numbers[i][3] = low.w;
          numbers[i][4] = high.x, numbers[i][5] = high.y, numbers[i][6] = high.z, numbers[i][7] = high.w;
        } else {
#pragma unroll
          for (int j = 0; j < 8; ++j) numbers[i][j] = j < dims ? query[j] : 0.0f;
        }
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int index = first + i * kThreads;
        if (kAll % (kAtOnce * kThreads) != 0 && index >= kAll) break;
        uint4 packed;
        packed.x = pack_pair<Number>(numbers[i][0], numbers[i][1]);
        packed.y = pack_pair<Number>(numbers[i][2], numbers[i][3]);
        packed.z = pack_pair<Number>(numbers[i][4], numbers[i][5]);
        packed.w = pack_pair<Number>(numbers[i][6], numbers[i][7]);
        *reinterpret_cast<uint4*>(queries + Rows::at(index / Rows::kPieces, index % Rows::kPieces)) = packed;
      }
    }
    for (int pair = static_cast<int>(threadIdx.x); pair < kPairs; pair += kThreads) sights[pair] = sight_of(pair);
  }

  // The keys or values of the step that starts at `first`; zeros for those that the task does not see. Nothing of blocks behind its last.
  __device__ __forceinline__ void request(Number* to, const void* from, int first) const {
    static_assert(kStepKeys % kRoundRows == 0 && kRoundRows % 8 == 0, "");
    int thread = static_cast<int>(threadIdx.x);
    forget(thread, kThreads);
    const int piece = thread % kRowThreads, first_row = thread / kRowThreads;
    // The task and all page numbers before the copies, which keep later reads behind them. Below 0: the key is before the task's first.
    const int key_of_task = first + first_row - task.first_key;
    const int num_keys = piece * 8 < call.head_dim ? task.last_key - task.first_key : 0;
    constexpr int kPage = kPageSize;
    const int32_t* pages = call.page_table.row(task.sequence) + (first + first_row) / kPage;
    const auto visible = [&](int round) {
      return static_cast<unsigned>(key_of_task + round * kRoundRows) < static_cast<unsigned>(num_keys);
    };
    const auto page_of = [&](int round) { return visible(round) ? pages[round * kRoundRows / kPage] : 0; };
    if (piece >= Rows::kPieces) return;
    // A round's rows stand where the first's do in their pages, or half a page behind.
    static_assert(kRoundRows % kPage == 0 || 2 * kRoundRows == kPage, "");
    const auto page_numbers = static_cast<int>(kv_index(1, 0, 0, 0, call.num_kv_heads, call.head_dim));
    const Number* start = static_cast<const Number*>(from) +
                          kv_index(0, kv_head, first_row % kPage, piece * 8, call.num_kv_heads, call.head_dim);
    const auto source_of = [&](int round, int page) {
      return start + static_cast<int64_t>(page) * page_numbers + round * kRoundRows % kPage * call.head_dim;
    };
    const int rows = (task.last_key + kKeys - 1) / kKeys * kKeys - first;
    Number* target = to + Rows::at(first_row, piece);
    const auto target_of = [&](int round) { return target + Rows::offset(round * kRoundRows, 0) / 2; };
    if (call.whole_pieces) {
      constexpr int kAtOnce = kRounds < 4 ? kRounds : 4;
#pragma unroll 1
      for (int round = 0; round < kRounds && round * kRoundRows < rows; round += kAtOnce) {
        int32_t page[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) page[i] = page_of(round + i);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) cp_async_16(target_of(round + i), source_of(round + i, page[i]), visible(round + i));
      }
      return;
    }
#pragma unroll 1
    for (int i = 0; i < kRounds && i * kRoundRows < rows; ++i) {
      const auto* source = reinterpret_cast<const uint16_t*>(source_of(i, page_of(i)));
#pragma unroll 1
      for (int j = 0; j < 8; ++j) {
        reinterpret_cast<uint16_t*>(target_of(i))[j] = visible(i) && piece * 8 + j < call.head_dim ? source[j] : 0;
      }
    }
  }

  // scores[n]: the warp's pairs with its keys 8 n .. 8 n + 7.
  __device__ __forceinline__ void multiply_keys(float (&scores)[kKeyTiles][4], const Number* block) const {
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
      for (int r = 0; r < 4; ++r) scores[n][r] = 0;
    }
    const Number* query_rows = queries + Rows::at(row_warp * 16 + lane % 16, lane / 16);
    const int first = column_warp * kWarpKeys;
    if constexpr (kKeyTiles % 2 == 0) {
      const Number* rows = block + Rows::at(first + lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
      for (int k = 0; k < kHeadDim / 16; ++k) {
        uint32_t a[4];
        ldmatrix_x4(a, query_rows, Rows::flip(2 * k), Rows::offset(0, 2 * k));
#pragma unroll
        for (int n = 0; n < kKeyTiles; n += 2) {
          uint32_t b[4];
          ldmatrix_x4(b, rows, Rows::flip(2 * k), Rows::offset(n * 8, 2 * k));
          const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
          mma_m16n8k16<Number>(scores[n], a, low);
          mma_m16n8k16<Number>(scores[n + 1], a, high);
        }
      }
    } else {
      const Number* rows = block + Rows::at(first + lane % 8, lane / 8 % 2);
#pragma unroll
      for (int k = 0; k < kHeadDim / 16; ++k) {
        uint32_t a[4];
        ldmatrix_x4(a, query_rows, Rows::flip(2 * k), Rows::offset(0, 2 * k));
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
          uint32_t b[2];
          ldmatrix_x2(b, rows, Rows::flip(2 * k), Rows::offset(n * 8, 2 * k));
          mma_m16n8k16<Number>(scores[n], a, b);
        }
      }
    }
  }

  // A score that has nothing added becomes an exponent of 2 by this factor.
  static constexpr float kLog2e = 1.44269504f;
  __device__ __forceinline__ bool only_scales() const { return call.softcap == 0 && !call.bias.data; }

  // Scores → exponents of 2. first: the step's first key.
  __device__ __forceinline__ void apply_rule(float (&scores)[kKeyTiles][4], int first) const {
    const Sight* sight = sights + row_warp * 16 + lane / 4;  // and 8 behind it
    const int warp_first = first + column_warp * kWarpKeys + 2 * (lane % 4);
    if (only_scales()) {
      const float scale = call.scale * kLog2e;
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int r = 0; r < 4; ++r) scores[n][r] *= scale;
      }
    } else {
      // One after the other, by way of memory: unrolled, this takes registers that the hot loop needs.
      const float cap = call.softcap, inverse_cap = cap == 0 ? 0 : 1 / cap;
      float copies[kKeyTiles * 4];
#pragma unroll
      for (int i = 0; i < kKeyTiles * 4; ++i) copies[i] = scores[i / 4][i % 4];
#pragma unroll 1
      for (int i = 0; i < kKeyTiles * 4; ++i) {
        float score = copies[i] * call.scale;
        if (cap != 0) score = cap * tanhf(score * inverse_cap);
        if (call.bias.data) {
          const Sight& pair = sight[i % 4 / 2 * 8];
          const int column = pair.bias_column + warp_first + i / 4 * 8 + i % 2;
          score += call.bias.row(pair.head)[min(max(column, 0), static_cast<int>(call.bias.cols) - 1)];
        }
        copies[i] = score * kLog2e;
      }
#pragma unroll
      for (int i = 0; i < kKeyTiles * 4; ++i) scores[i / 4][i % 4] = copies[i];
    }
  }

  // Exponents of keys that a pair does not see → -inf.
  __device__ __forceinline__ void hide_unseen(float (&scores)[kKeyTiles][4], int first) const {
    const Sight* sight = sights + row_warp * 16 + lane / 4;
    const int warp_first = first + column_warp * kWarpKeys + 2 * (lane % 4);
    const int first_key[2] = {sight[0].first_key, sight[8].first_key}, last_key[2] = {sight[0].last_key, sight[8].last_key};
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int key = warp_first + n * 8 + r % 2;
        if (key < first_key[r / 2] || key >= last_key[r / 2]) scores[n][r] = -INFINITY;
      }
    }
  }

  // Where the weights and the values of a step's block start, for the two functions below.
  __device__ __forceinline__ const Number* weights_of(int block) const {
    return weights + WeightRows::at(row_warp * 16 + lane % 16, block * (kKeys / 8) + lane / 16);
  }
  __device__ __forceinline__ const Number* values_of(const Number* step, int block) const {
    return step + KeyRows::at(block * kKeys + lane % 16, 2 * column_warp + lane / 16);
  }

  // The weights of keys 16 k .. 16 k + 15 of a block as A of mma. own: what the thread computed, if its warp has the weights of all keys.
  __device__ __forceinline__ void load_weights(uint32_t (&a)[4], const uint32_t (&own)[kKeyTiles][2], const Number* block, int k) const {
    if constexpr (kColumnWarps == 1) {
      a[0] = own[2 * k][0];
      a[1] = own[2 * k][1];
      a[2] = own[2 * k + 1][0];
      a[3] = own[2 * k + 1][1];
    } else {
      ldmatrix_x4(a, block, WeightRows::flip(2 * k), WeightRows::offset(0, 2 * k));
    }
  }

  // Values of keys 16 k .. 16 k + 15 of a block as B of two mma: of the dims 0-7 and 8-15 of the warp's j-th tile.
  __device__ __forceinline__ void load_values(uint32_t (&b)[4], const Number* block, int k, int j) const {
    ldmatrix_x4_trans(b, block, KeyRows::flip(2 * j * kColumnWarps), KeyRows::offset(k * 16, 2 * j * kColumnWarps));
  }

  // Whether the warp has a j-th tile of dims.
  __device__ __forceinline__ bool has_dims(int j) const {
    return kHeadDim / 16 % kColumnWarps == 0 || column_warp + j * kColumnWarps < kHeadDim / 16;
  }

  // sums += weights * values of a step's block.
  __device__ __forceinline__ void multiply_values(Sums& sums, const uint32_t (&own)[kKeyTiles][2], const Number* step, int block) const {
    const uint32_t one = pack_pair<Number>(1, 1);
    const uint32_t ones[2] = {one, one};
    const Number* block_weights = weights_of(block);
    const Number* block_values = values_of(step, block);
    float total[4] = {sums.total[0], 0, sums.total[1], 0};
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      uint32_t a[4];
      load_weights(a, own, block_weights, k);
      mma_m16n8k16<Number>(total, a, ones);
#pragma unroll
      for (int j = 0; j < kDimTiles; ++j) {
        if (!has_dims(j)) break;
        uint32_t b[4];
        load_values(b, block_values, k, j);
        const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
        mma_m16n8k16<Number>(sums.values[j][0], a, low);
        mma_m16n8k16<Number>(sums.values[j][1], a, high);
      }
    }
    sums.total[0] = total[0];
    sums.total[1] = total[2];
  }

  // Whether an infinity or NaN is among the warp's part of a block's values: a number whose exponent is all ones carries into its sign.
  __device__ __forceinline__ bool has_special(const Number* step, int block) const {
    constexpr bool kIsHalf = std::is_same<Number, __half>::value;
    constexpr uint32_t kExponents = kIsHalf ? 0x7c007c00u : 0x7f807f80u, kLowest = kIsHalf ? 0x04000400u : 0x00800080u;
    const Number* block_values = values_of(step, block);
    uint32_t carries = 0;
#pragma unroll 1
    for (int j = 0; j < kDimTiles && has_dims(j); ++j) {
#pragma unroll
      for (int i = 0; i < kKeys / 16; ++i) {
        uint32_t b[4];
        load_values(b, block_values, i, j);
#pragma unroll
        for (int r = 0; r < 4; ++r) carries |= (b[r] & kExponents) + kLowest;
      }
    }
    return __any_sync(0xffffffffu, (carries & 0x80008000u) != 0);
  }

  // multiply_values for a block in which some pair does not see some key whose value is not finite: 0 * infinity is not 0. One mma a pair,
  // without the keys that it does not see, of which its row of D is kept. So rare that speed does not matter: the copies lie in memory.
  __device__ __forceinline__ void multiply_seen_values(Sums& sums, const uint32_t (&own)[kKeyTiles][2], const Number* step, int block,
                                                       int first) const {
    const uint32_t one = pack_pair<Number>(1, 1);
    const uint32_t ones[2] = {one, one};
    const Number* block_weights = weights_of(block);
    const Number* block_values = values_of(step, block);
    float total[4] = {sums.total[0], 0, sums.total[1], 0};
    uint32_t a[kKeys / 16][4];
    float d[2 * kDimTiles][4];
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) load_weights(a[k], own, block_weights, k);
#pragma unroll
    for (int n = 0; n < 2 * kDimTiles; ++n) {
#pragma unroll
      for (int r = 0; r < 4; ++r) d[n][r] = sums.values[n / 2][n % 2][r];
    }
#pragma unroll 1
    for (int k = 0; k < kKeys / 16; ++k) {
      mma_m16n8k16<Number>(total, a[k], ones);
#pragma unroll 1
      for (int n = 0; n < 2 * kDimTiles && has_dims(n / 2); ++n) {
        uint32_t b[4];
        load_values(b, block_values, k, n / 2);
        float result[4] = {d[n][0], d[n][1], d[n][2], d[n][3]};
#pragma unroll 1
        for (int row = 0; row < 16; ++row) {
          const Sight sight = sights[row_warp * 16 + row];
          const auto seen = [&](uint32_t two, int key) {
            return (key >= sight.first_key && key < sight.last_key ? two & 0xffffu : 0) |
                   (key + 1 >= sight.first_key && key + 1 < sight.last_key ? two & 0xffff0000u : 0);
          };
          const int key = first + (block * (kKeys / 16) + k) * 16 + 2 * (lane % 4);
          const uint32_t rest[2] = {seen(n % 2 == 0 ? b[0] : b[2], key), seen(n % 2 == 0 ? b[1] : b[3], key + 8)};
          float sum[4] = {d[n][0], d[n][1], d[n][2], d[n][3]};
          mma_m16n8k16<Number>(sum, a[k], rest);
#pragma unroll
          for (int r = 0; r < 4; ++r) {
            if (row == lane / 4 + r / 2 * 8) result[r] = sum[r];
          }
        }
#pragma unroll
        for (int r = 0; r < 4; ++r) d[n][r] = result[r];
      }
    }
    sums.total[0] = total[0];
    sums.total[1] = total[2];
#pragma unroll
    for (int n = 0; n < 2 * kDimTiles; ++n) {
#pragma unroll
      for (int r = 0; r < 4; ++r) sums.values[n / 2][n % 2][r] = d[n][r];
    }
  }

  static __device__ __forceinline__ void clear(Sums& sums) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sums.top[r] = -INFINITY;
      sums.total[r] = 0;
    }
#pragma unroll
    for (int j = 0; j < kDimTiles; ++j) {
#pragma unroll
      for (int r = 0; r < 4; ++r) sums.values[j][0][r] = sums.values[j][1][r] = 0;
    }
  }

  // Merges a split, behind those that are in `all`.
  static __device__ __forceinline__ void merge(Sums& all, const Sums& split) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const MergeFactors factors(all.top[r], split.top[r]);
      all.top[r] = factors.top;
      all.total[r] = factors.merged(all.total[r], split.total[r]);
#pragma unroll
      for (int j = 0; j < kDimTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& number = all.values[j][i / 2][2 * r + i % 2];
          number = factors.merged(number, split.values[j][i / 2][2 * r + i % 2]);
        }
      }
    }
  }

  // `count` numbers of a pair's output, from `dim` on; two at once where pieces are whole.
  template <int count>
  __device__ __forceinline__ void output(int pair, int dim, const float (&numbers)[count]) const {
    const int64_t first = row_of(pair) * call.out.stride + static_cast<int64_t>(head_of(pair)) * call.head_dim + dim;
    static_assert(count % 2 == 0, "");
    const auto store = [&](int i, const auto& pack) {  // of two types, not store_rounded's three, for which there are no registers
      if (call.out.dtype == DType::float32) {
        store_as<float>(call.out.data, first + i, pack);
      } else {
        store_as<Number>(call.out.data, first + i, pack);
      }
    };
    if (call.whole_pieces) {
#pragma unroll
      for (int i = 0; i < count; i += 2) {
        if (dim + i < call.head_dim) store(i, Pack<float, 2>{{numbers[i], numbers[i + 1]}});
      }
    } else {
#pragma unroll
      for (int i = 0; i < count; ++i) {
        if (dim + i < call.head_dim) store(i, Pack<float, 1>{{numbers[i]}});
      }
    }
  }

  // Where a pair's sums of a split lie.
  __device__ __forceinline__ float* partial(int split, int pair) const {
    return call.partials + ((task.partial + static_cast<int64_t>(split) * task.num_pairs + pair) * call.num_kv_heads + kv_head) * call.partial_stride;
  }

  // Writes a whole tile's outputs, or a split's sums.
  __device__ __forceinline__ void store(const Sums& sums) const {
    const bool whole = task.num_splits == 1;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int pair = row_warp * 16 + lane / 4 + 8 * r;
      if (pair >= task.num_pairs) continue;
      const int first = column_warp * 16 + 2 * (lane % 4);
      if (whole) {
        const float factor = 1 / sums.total[r];
#pragma unroll
        for (int j = 0; j < 2 * kDimTiles; ++j) {
          const float* two = sums.values[j / 2][j % 2] + 2 * r;
          output(pair, first + j / 2 * kColumnWarps * 16 + j % 2 * 8, {two[0] * factor, two[1] * factor});
        }
        continue;
      }
      float* to = partial(task.split, pair);
      if (column_warp == 0 && lane % 4 == 0) {
        to[0] = sums.top[r];
        to[1] = sums.total[r];
      }
      to += kPartialHeader;
      if (call.whole_pieces) {
#pragma unroll
        for (int j = 0; j < 2 * kDimTiles; ++j) {
          const int dim = first + j / 2 * kColumnWarps * 16 + j % 2 * 8;
          const float* two = sums.values[j / 2][j % 2] + 2 * r;
          if (dim < call.head_dim) *reinterpret_cast<float2*>(to + dim) = make_float2(two[0], two[1]);
        }
      } else {
#pragma unroll
        for (int j = 0; j < 4 * kDimTiles; ++j) {
          const int dim = first + j / 4 * kColumnWarps * 16 + j / 2 % 2 * 8 + j % 2;
          if (dim < call.head_dim) to[dim] = sums.values[j / 4][j / 2 % 2][2 * r + j % 2];
        }
      }
    }
  }

  // Behind the store of a split's sums: the block that comes last merges all. sync(): of the tile's threads.
  template <class Sync>
  __device__ __forceinline__ void merge_partials(const Sync& sync) const {
    __threadfence();
    sync();
    if (threadIdx.x == 0) {
      unsigned* arrived = call.arrived + static_cast<int64_t>(task.tile) * call.num_kv_heads + kv_head;
      *is_last = atomicAdd(arrived, 1u) + 1 == static_cast<unsigned>(task.num_splits);
      if (*is_last) *arrived = 0;
    }
    sync();
    if (!*is_last) return;
    __threadfence();
    const int fours = (call.head_dim + 3) / 4;
    const int64_t split_numbers = static_cast<int64_t>(task.num_pairs) * call.num_kv_heads * call.partial_stride;
    int thread = static_cast<int>(threadIdx.x);
    forget(thread, kThreads);
    for (int index = thread; index < task.num_pairs * fours; index += kThreads) {
      const int pair = index / fours, first = index % fours * 4;
      const float* from = partial(0, pair);
      float top = -INFINITY, total = 0, numbers[4] = {0, 0, 0, 0};
#pragma unroll 2
      for (int split = 0; split < task.num_splits; ++split) {
        const float4 header = __ldcg(reinterpret_cast<const float4*>(from));  // other blocks wrote it: past the first-level cache
        const float4 part = __ldcg(reinterpret_cast<const float4*>(from + kPartialHeader + first));
        from += split_numbers;
        const MergeFactors factors(top, header.x);
        top = factors.top;
        total = factors.merged(total, header.y);
        numbers[0] = factors.merged(numbers[0], part.x);
        numbers[1] = factors.merged(numbers[1], part.y);
        numbers[2] = factors.merged(numbers[2], part.z);
        numbers[3] = factors.merged(numbers[3], part.w);
      }
      const float factor = 1 / total;
      output(pair, first, {numbers[0] * factor, numbers[1] * factor, numbers[2] * factor, numbers[3] * factor});
    }
  }

  __device__ __forceinline__ void run() {
    const int first_key = task.first_key, last_key = task.last_key;
    const int first_step = first_key / kStepKeys;
    const int last_step = (last_key + kStepKeys - 1) / kStepKeys;
    // Copies come in one order: keys, values, keys, values, …
    const auto request_keys = [&](int step) {
      if (step < last_step) request(keys + step % kStages * kStageNumbers, call.keys, step * kStepKeys);
      cp_async_commit();
    };
    const auto request_values = [&](int step) {
      if (step < last_step) request(values + step % kStages * kStageNumbers, call.values, step * kStepKeys);
      cp_async_commit();
    };
#pragma unroll
    for (int i = 0; i < kStages; ++i) {
      request_keys(first_step + i);
      request_values(first_step + i);
    }
    load_queries();

    Sums all, split;
    clear(all);
    clear(split);
    for (int step = first_step; step < last_step; ++step) {
      forget(lane, 32);
      const int first = step * kStepKeys;
      if (step > first_step) {
        __syncthreads();  // all are done with the values of the step before
        request_values(step - 1 + kStages);
      }
      cp_async_wait<2 * kStages - 1>();
      __syncthreads();  // the keys are there for all

      // Of the warp's 16 pairs: pair 0 sees least of what lies ahead, pair 15 least of what lies behind.
      const Sight* lowest = sights + row_warp * 16;
      const Sight* highest = lowest + 15;
      const bool active = row_warp * 16 < task.num_pairs && first < highest->last_key && first + kStepKeys > lowest->first_key;
      const int warp_first = first + column_warp * kWarpKeys;
      float scores[kKeyTiles][4];
      float top[2] = {-INFINITY, -INFINITY};
      const bool has_keys = active && (kStepBlocks == 1 || (warp_first < last_key && warp_first + kWarpKeys > first_key));
      if (has_keys) {
        multiply_keys(scores, keys + step % kStages * kStageNumbers);
        apply_rule(scores, first);
        if (warp_first < highest->first_key || warp_first + kWarpKeys > lowest->last_key) hide_unseen(scores, first);
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
          for (int r = 0; r < 4; ++r) top[r / 2] = fmaxf(top[r / 2], scores[n][r]);
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
          top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
        }
      }
      const int pair = row_warp * 16 + lane / 4;
      if constexpr (kColumnWarps > 1) {
        if (lane % 4 == 0) {
          maxima[column_warp * kPairs + pair] = top[0];
          maxima[column_warp * kPairs + pair + 8] = top[1];
        }
        __syncthreads();
      }

      uint32_t own[kKeyTiles][2];  // weights of rows lane / 4 and lane / 4 + 8, two keys each
      float shrink[kStepBlocks][2];
      if (active) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float own_base = 0;
#pragma unroll
          for (int block = 0; block < kStepBlocks; ++block) {
            float block_top = top[r];
            if constexpr (kColumnWarps > 1) {
              block_top = maxima[block * kBlockWarps * kPairs + pair + 8 * r];
#pragma unroll
              for (int warp = 1; warp < kBlockWarps; ++warp) {
                block_top = fmaxf(block_top, maxima[(block * kBlockWarps + warp) * kPairs + pair + 8 * r]);
              }
            }
            const float before = split.top[r];
            split.top[r] = fmaxf(before, block_top);
            const float base = split.top[r] == -INFINITY ? 0 : split.top[r];
            shrink[block][r] = exp2_approximate(before - base);
            if (block == column_warp / kBlockWarps) own_base = base;
          }
#pragma unroll
          for (int n = 0; n < kKeyTiles; ++n) {
            own[n][r] = has_keys ? pack_pair<Number>(exp2_approximate(scores[n][2 * r] - own_base),
                                                     exp2_approximate(scores[n][2 * r + 1] - own_base))
                                 : 0;
            if constexpr (kColumnWarps > 1) {
              const int piece = column_warp * kKeyTiles + n;
              *reinterpret_cast<uint32_t*>(weights + WeightRows::at(pair + 8 * r, piece) + 2 * (lane % 4)) = own[n][r];
            }
          }
        }
      }

      forget(lane, 32);
      cp_async_wait<2 * kStages - 2>();
      __syncthreads();  // the values are there for all, and the weights; all are done with the keys
      request_keys(step + kStages);
      if (active) {
        const Number* step_values = values + step % kStages * kStageNumbers;
#pragma unroll 1
        for (int block = 0; block < kStepBlocks; ++block) {
          const int block_first = first + block * kKeys;
          if (kStepBlocks > 1 && block_first >= last_key) break;
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            float factor = shrink[0][r];
#pragma unroll
            for (int i = 1; i < kStepBlocks; ++i) factor = block == i ? shrink[i][r] : factor;
            split.total[r] *= factor;
#pragma unroll
            for (int j = 0; j < kDimTiles; ++j) {
#pragma unroll
              for (int i = 0; i < 4; ++i) split.values[j][i / 2][2 * r + i % 2] *= factor;
            }
          }
          // Values that some pair does not see and that are not zeros, as those are which the task does not see.
          const bool unseen = max(block_first, first_key) < highest->first_key || min(block_first + kKeys, last_key) > lowest->last_key;
          if (unseen && has_special(step_values, block)) {
            multiply_seen_values(split, own, step_values, block, first);
          } else {
            multiply_values(split, own, step_values, block);
          }
        }
      }

      if ((first + kStepKeys) % kSplitKeys == 0 || step + 1 == last_step) {
        merge(all, split);
        clear(split);
      }
    }
    cp_async_wait<0>();
    store(all);
    if (task.num_splits > 1) merge_partials([] { __syncthreads(); });
    __syncthreads();  // the next task's
  }
};

// blockIdx.x: the key/value head; blockIdx.y: the first task. So the longest tasks of all heads start first.
template <class Tiles, int kBlocks>
__global__ void __launch_bounds__(Tiles::kThreads, kBlocks) attend_tiles(const AttentionCall call, bool wide) {
  static_assert(Tiles::kSharedBytes <= kMaxSharedBytes, "");
  start_next_kernel(call.qkv.rows);
  const PlanHeader plan = *call.plan;  // of the step's block, which no kernel writes
  wait_for_previous_kernel();
  const AttentionTask* tasks = plan.tasks + (wide ? plan.num_narrow : 0);
  const int num_tasks = wide ? plan.num_wide : plan.num_narrow;
  for (int task = static_cast<int>(blockIdx.y); task < num_tasks; task += static_cast<int>(gridDim.y)) {
    Tiles(call, tasks[task], static_cast<int>(blockIdx.x)).run();
  }
}

// function(null pointer of the keys' type, the dims that a tile has for heads of head_dim, as a std::integral_constant). Only compute is
// lost to dims behind a head's own, which are not read.
template <class Function>
void with_tile_type(DType dtype, int head_dim, const Function& function) {
  const auto with_dims = [&](auto* number) {
    if (head_dim <= 32) return function(number, std::integral_constant<int, 32>());
    if (head_dim <= 64) return function(number, std::integral_constant<int, 64>());
    if (head_dim <= 80) return function(number, std::integral_constant<int, 80>());
    if (head_dim <= 96) return function(number, std::integral_constant<int, 96>());
    if (head_dim <= 128) return function(number, std::integral_constant<int, 128>());
    if (head_dim <= 192) return function(number, std::integral_constant<int, 192>());
    return function(number, std::integral_constant<int, kMaxHeadDim>());
  };
  if (dtype == DType::float16) return with_dims(static_cast<__half*>(nullptr));
  with_dims(static_cast<__nv_bfloat16*>(nullptr));
}

}  // namespace cuda
}  // namespace parley

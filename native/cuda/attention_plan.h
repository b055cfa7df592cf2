// Which thread block of the attention kernels computes what: plain C++, made on the host once a step and used by all layers.
//
// Query pairs: the query heads that share a key/value head, of all rows of a sequence, are numbered pair = row * heads_per_kv + head, so
// that a tile of them reads the head's keys and values once. A tile of up to kNarrowPairs runs in the decode kernel, a longer one in
// the prefill kernel.
//
// Splits: keys are cut at the multiples of kSplitKeys, whatever the step. Every split of a tile is summed by itself, and the splits are
// merged in order - in the registers of one block, which then has the whole tile, or by way of memory, one block a split. So only speed
// depends on which of the two a plan chooses.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/types.h"

namespace parley {
namespace cuda {

constexpr int64_t kSplitKeys = 256;
constexpr int64_t kNarrowPairs = 16;
constexpr int kMaxHeadDim = 256;

// Most pairs of a tile of the prefill kernel. That for compute capability 9.0 may have more (hopper_pairs), but none fewer.
constexpr int64_t kWidePairs = 64;

// One tile, or one split of it, for every key/value head.
struct AttentionTask {
  int32_t row;         // first row of the sequence in the call
  int32_t sequence;    // row of the page table
  int32_t first_pair;  // pairs [first_pair, first_pair + num_pairs) of the sequence's
  int32_t num_pairs;
  int32_t first_key;  // keys [first_key, last_key): what any of the pairs sees, of the split
  int32_t last_key;
  int32_t split;       // its number among the tile's
  int32_t num_splits;  // 1: the tile is computed by one block
  int32_t partial;     // of the tile's first split: where its pairs' sums lie; a split's are num_pairs behind the one before
  int32_t tile;        // among those of several splits
};

struct AttentionPlan {
  std::vector<AttentionTask> narrow;  // for the decode kernel, longest first
  std::vector<AttentionTask> wide;    // for the prefill kernel
  int64_t num_partials = 0;           // sums of a pair, for each key/value head
  int64_t num_split_tiles = 0;
};

// What a plan may use.
struct AttentionLimits {
  int64_t wide_pairs;       // of a tile
  int64_t multiprocessors;  // 0: no tile is cut
  int64_t partials;         // AttentionPlan::num_partials at most
  int64_t split_tasks;      // of tiles of several splits
};

// Tiles for every key/value head, if each has up to `pairs` pairs.
int64_t count_tiles(const AttentionRows& rows, HeadLayout heads, int64_t pairs);

// The rows of `rows`' host lists, with the window and num_keys of `rule`.
AttentionPlan plan_attention(const AttentionRows& rows, HeadLayout heads, const AttentionRule& rule, const AttentionLimits& limits);

// Tiles of each kind that a row has which is alone in its sequence, as every row of a decode step.
struct RowTiles {
  int64_t narrow;
  int64_t wide;
};
RowTiles tiles_of_row(HeadLayout heads, int64_t wide_pairs);

}  // namespace cuda
}  // namespace parley

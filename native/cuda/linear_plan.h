// How `linear` is cut into blocks. Plain arithmetic: tests run it without a GPU.
//
// One order of summation, whichever kernel runs and however many tokens there are. The units of 64 columns are cut into 8 slices: of n
// units, slice s begins at unit floor(s n / 8). Inside a slice the products are added unit after unit, 16 columns a tensor core instruction,
// from zero on; the slices' sums are added in the tree ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)). So a slice, or an aligned half or quarter
// of them, can be the work of a warp, of a block or of a GPU, and the bits are those of one who does it all.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/arithmetic.h"
#include "cuda/packed_weight.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

constexpr int kNumSlices = 8;

// Slices of a weight. One of 2, 4 or 8 parts of a matrix, each of whole units, has its share of the matrix's slices: for r of N parts with u
// units, floor((8 r / N + s) N u / 8) = r u + floor(s u / (8 / N)).
inline int64_t num_slices(const PackedWeight& weight) {
  return kNumSlices % weight.parts == 0 && weight.cols % kUnitCols == 0 ? kNumSlices / weight.parts : kNumSlices;
}

// Most tokens of the kernel that reads a weight straight into registers: one side of a tensor core instruction.
constexpr int64_t kFewTokens = 8;

// Rows of a block of that kernel: 16, or 32 where they still are enough blocks for the GPU and several tokens are read along with them.
inline int64_t few_tokens_block_rows(int64_t rows, int64_t tokens, int64_t num_multiprocessors) {
  return tokens > 2 && rows >= 24 * num_multiprocessors ? 32 : 16;
}

// A block of the kernel for more tokens computes `rows` x `tokens` outputs, or one of `splits` equal parts of their sums.
struct LinearTile {
  int64_t rows;
  int64_t tokens;
  int64_t splits;  // 1, 2, 4 or 8
};

inline int64_t tile_tokens(int64_t tokens) { return tokens <= 16 ? 16 : tokens <= 32 ? 32 : tokens <= 64 ? 64 : 128; }

// Up to 32 tokens the weights' rows are the traffic: smaller blocks, more of them. Above, square ones read the tokens less often.
inline int64_t tile_rows(int64_t tile_tokens) { return tile_tokens <= 32 ? 64 : 128; }

// Sums are split while three quarters of the GPU would stand idle otherwise, which leaves at most 3/2 blocks a multiprocessor.
inline LinearTile plan_linear(int64_t rows, int64_t tokens, int64_t num_slices, int64_t num_multiprocessors) {
  LinearTile tile{0, tile_tokens(tokens), 1};
  tile.rows = tile_rows(tile.tokens);
  const int64_t num_tiles = ceil_div(rows, tile.rows) * ceil_div(tokens, tile.tokens);
  while (tile.splits < num_slices && num_tiles * tile.splits * 4 <= num_multiprocessors * 3) tile.splits *= 2;
  return tile;
}

// Blocks that write a part of a sum, at most; see plan_linear.
inline int64_t max_split_blocks(int64_t num_multiprocessors) { return num_multiprocessors * 3 / 2; }

// Numbers of the largest tile.
constexpr int64_t kMaxTileNumbers = 128 * 128;

// How `items` are dealt out to blocks, each a run of neighbours: all have `few`, and those that are left go one by one to the blocks from
// first_extra on, around. So what is dealt out next can begin with the blocks that have less.
struct Shares {
  int32_t few;
  int32_t first_extra;
  int32_t at_start;  // blocks 0 .. that have one more, and
  int32_t behind;    // those from first_extra on

  static Shares of(int64_t items, int64_t blocks, int64_t first_extra) {
    const int64_t extras = items % blocks, at_start = std::max<int64_t>(0, first_extra + extras - blocks);
    return {static_cast<int32_t>(items / blocks), static_cast<int32_t>(first_extra), static_cast<int32_t>(at_start),
            static_cast<int32_t>(extras - at_start)};
  }
  // First item of a block; that of the block behind the last is the number of items.
  constexpr int32_t begin(int32_t block) const {
    const int32_t later = block > first_extra ? block - first_extra : 0;
    return block * few + (block < at_start ? block : at_start) + (later < behind ? later : behind);
  }
  // Whose an item is.
  constexpr int32_t block_of(int32_t item) const {
    int32_t before = at_start * (few + 1);
    if (item < before) return item / (few + 1);
    item -= before;
    before = (first_extra - at_start) * few;
    if (item < before) return at_start + item / few;
    item -= before;
    before = behind * (few + 1);
    return first_extra + (item < before ? item / (few + 1) : behind + (item - before) / few);
  }
};

// Most tokens of the kernel for compute capability 9.0.
constexpr int64_t kMostHopperTokens = 128;
inline int64_t hopper_tile_tokens(int64_t tokens) { return tokens <= 8 ? 8 : tile_tokens(tokens); }

// Where its blocks leave sums: numbers that two products need at most.
inline int64_t hopper_part_numbers(int64_t num_multiprocessors) { return num_multiprocessors * kNumSlices * kMaxTileNumbers * 2; }

}  // namespace cuda
}  // namespace parley

// One group of tokens and float16 weights: the sums of two panels stay in tiles from the first column to the last, and four sums hide how
// long each takes, so that splitting the weights is what takes the time. The order of every sum is linear_amx.h's. (bfloat16 weights, which
// need no splitting, gain nothing by it: they wait for the memory.)
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_amx_parts.h"
#include "cpu/kernels/linear_finish.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

constexpr int64_t kTilePanels = 2;

// How far before their use weights are asked for.
constexpr int64_t kAmxAheadCols = 128;

// Splits the panels [panel, last_panel), two at a time, block after block of 32 columns into two places in turn:
// [panel][term][half of the panel][16 pairs of columns][16 outputs][2]. It does so little by little between the tiles' instructions, which
// run beside it, and asks for the memory that comes kAmxAheadCols later.
struct StreamSplitter {
  static constexpr int64_t kPanelNumbers = 2 * 2 * kAmxNumbers;  // of a block
  static constexpr int64_t kBlockNumbers = kTilePanels * kPanelNumbers;
  static constexpr int kBlockPairs = kTilePanels * kAmxCols / 2;

  const LinearCall& call;
  const int64_t last_panel;
  Bf16* const places;

  int64_t panel;  // of the block that is next
  int64_t col = 0;
  Bf16* to;
  const Fp16* from[kTilePanels];
  int64_t ahead;
  alignas(64) Fp16 filled[kTilePanels][kAmxCols * kPanelRows];  // a block of fewer columns, filled up with 0

  StreamSplitter(const LinearCall& linear, int64_t first_panel, int64_t stop_panel, Bf16* two_places)
      : call(linear), last_panel(stop_panel), places(two_places), panel(first_panel), to(two_places) {
    find();
    split_pairs<0, kBlockPairs>();
    next_block();
  }

  template <class Place>
  PARLEY_INLINE Place* other(Place* block) const {
    return block == places ? places + kBlockNumbers : places;
  }

  // Where the next block's numbers lie.
  PARLEY_INLINE void find() {
    // Behind a panel's end lies the other, and then the one that will take its place.
    ahead = (col + kAmxAheadCols < call.cols ? kAmxAheadCols : kAmxAheadCols + call.cols) * kPanelRows;
    for (int p = 0; p < kTilePanels; ++p) {
      const int64_t there = panel + p < last_panel ? panel + p : panel;  // nobody reads the sums of a panel behind the last
      from[p] = static_cast<const Fp16*>(call.weight) + (there * call.cols + col) * kPanelRows;
      if (call.cols - col < kAmxCols) {
        const size_t bytes = static_cast<size_t>(call.cols - col) * kPanelRows * sizeof(Fp16);
        __builtin_memcpy(filled[p], from[p], bytes);
        __builtin_memset(reinterpret_cast<char*>(filled[p]) + bytes, 0, sizeof filled[p] - bytes);
        from[p] = filled[p];
      }
    }
  }

  PARLEY_INLINE void next_block() {
    to = other(to);
    col += kAmxCols;
    if (col >= call.cols) {
      col = 0;
      panel += kTilePanels;
      if (panel >= last_panel) panel = last_panel - 1;  // behind the last block any will do
    }
    find();
  }

  // Pairs of columns [first, last) of the block.
  template <int first, int last>
  PARLEY_INLINE void split_pairs() {
#pragma GCC unroll 16
    for (int pair = first; pair < last; ++pair) {
      const int p = pair / (kAmxCols / 2);
      const int k = pair % (kAmxCols / 2) * 2;
      Bf16* row = to + p * kPanelNumbers + k * 16;
      const Fp16* even = from[p] + k * kPanelRows;
      // Into the second-level cache: the first has fewer misses on their way, and split weights and tokens to hold.
      __builtin_prefetch(even + ahead, 0, 2);
      __builtin_prefetch(even + ahead + kPanelRows, 0, 2);
      split_pair(row, even, even + kPanelRows);
      split_pair(row + kAmxNumbers, even + 16, even + 16 + kPanelRows);
    }
  }

  // What is split beside the products of tile `sum` and a term, three with the first and two with the second.
  template <int sum, int term>
  PARLEY_INLINE void split_share() {
    constexpr int sums = 2 * kTilePanels;
    constexpr int pairs = term == 0 ? 5 : 3;
    static_assert(sums * (5 + 3) == kBlockPairs, "");
    constexpr int first = term == 0 ? sum * pairs : sums * 5 + sum * pairs;
    split_pairs<first, first + pairs>();
  }
};

// Tile `sum` += one term of its half of a panel times the tokens' terms, which are tiles 4 to 6; then a share of the next block is split.
// (A macro: the compiler wants a tile's number written out.)
#define PARLEY_MULTIPLY(sum, term)                                                                                            \
  _tile_loadd(7, block + sum / 2 * StreamSplitter::kPanelNumbers + (2 * term + sum % 2) * kAmxNumbers, 64);                 \
  _tile_dpbf16ps(sum, 4, 7);                                                                                                  \
  _tile_dpbf16ps(sum, 5, 7);                                                                                                  \
  if (term == 0) _tile_dpbf16ps(sum, 6, 7);                                                                                   \
  weights.split_share<sum, term>()

// y [panel][16][32] = two panels times the group's tokens of x_tile numbers a tile. `block` is their first.
PARLEY_INLINE void multiply_stream(float* y, const Bf16* x, int64_t x_tile, const Bf16*& block, int64_t blocks,
                                   StreamSplitter& weights) {
  constexpr int64_t stride = kPanelRows * sizeof(float);
  constexpr int64_t y_panel = kAmxTokens * kPanelRows;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  asm volatile("" ::: "memory");  // the compiler does not know that tiles come from memory
  for (int64_t b = 0; b < blocks; ++b, x += kTokenTerms * x_tile, block = weights.other(block)) {
    _tile_loadd(4, x, 64);
    _tile_loadd(5, x + x_tile, 64);
    _tile_loadd(6, x + 2 * x_tile, 64);
    PARLEY_MULTIPLY(0, 0);
    PARLEY_MULTIPLY(1, 0);
    PARLEY_MULTIPLY(2, 0);
    PARLEY_MULTIPLY(3, 0);
    PARLEY_MULTIPLY(0, 1);
    PARLEY_MULTIPLY(1, 1);
    PARLEY_MULTIPLY(2, 1);
    PARLEY_MULTIPLY(3, 1);
    weights.next_block();
  }
  _tile_stored(0, y, stride);
  _tile_stored(1, y + 16, stride);
  _tile_stored(2, y + y_panel, stride);
  _tile_stored(3, y + y_panel + 16, stride);
  asm volatile("" ::: "memory");
}
#undef PARLEY_MULTIPLY

// The panels [first_panel, last_panel) for one group. Tiles 0 to 3 hold the sums.
void stream_amx(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t group, float* scratch) {
  const int64_t x_tile = amx_rows(call.num_tokens, call.num_groups) * kAmxCols;
  const int64_t blocks = amx_blocks(call.cols);
  const Bf16* x = static_cast<const Bf16*>(call.tokens) + group * blocks * kTokenTerms * x_tile;
  const int64_t first_token = first_token_of(call, group);
  const int64_t tokens = first_token_of(call, group + 1) - first_token;
  float* y = scratch + kAmxChunkNumbers;
  StreamSplitter weights(call, first_panel, last_panel, reinterpret_cast<Bf16*>(scratch));
  const Bf16* block = weights.places;
  for (int64_t panel = first_panel; panel < last_panel; panel += kTilePanels) {
    multiply_stream(y, x, x_tile, block, blocks, weights);
    for (int64_t p = 0; p < kTilePanels && panel + p < last_panel; ++p) {
      finish_tokens(call, first_token, tokens, panel + p, y + p * kAmxTokens * kPanelRows);
    }
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

// `linear` with 16-bit weights on AMX's tiles of bfloat16, to the precision of float32.
//
// A product of two bfloat16 numbers is exact in float32; any float32 is the sum of three bfloat16 numbers, any float16 of two. So a
// token is split into x1 + x2 + x3 when it is laid out, a float16 weight into w1 + w2 when it is read, and the tiles add x1 w1, x2 w1,
// x3 w1, x1 w2, x2 w2. What is left out, x3 w2, is at most 2^-23 of the product, as much as two roundings of it would be. (Numbers below
// 2^-126 count as 0: the tiles have no subnormals.)
//
// An output is summed over blocks of 32 columns in order, in a block over those five in order, and the hardware's own order within a
// tile is the same for all its rows. So neither the tile nor the token's neighbours can change its bits.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_amx_parts.h"
#include "cpu/kernels/linear_amx_stream.h"
#include "cpu/kernels/linear_finish.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// Splits `cols` columns of a panel into [block of 32 columns][term][half of the panel][16 pairs of columns][16 outputs][2], little by
// little between the tiles' instructions, which run beside it; and asks for the memory at `ahead`.
template <class Number>
struct Splitter {
  Bf16* to;
  const Number* panel;
  int64_t cols;
  const char* ahead;
  int64_t pair = 0;

  PARLEY_INLINE void advance(int64_t pairs) {
    constexpr int64_t per_block = kAmxCols / 2;
    constexpr int64_t terms = weight_terms(static_cast<const Number*>(nullptr));
    const int64_t all = amx_blocks(cols) * per_block;
    const int64_t last = pair + pairs < all ? pair + pairs : all;
    for (; pair < last; ++pair) {
      Bf16* row = to + pair / per_block * (2 * terms * kAmxNumbers) + pair % per_block * 32;
      const Number* even = panel + 2 * pair * kPanelRows;
      if (2 * pair + 1 < cols) {
        // Into the second-level cache: the first has fewer misses on their way, and split weights and tokens to hold.
        __builtin_prefetch(ahead + 2 * pair * kPanelRows * static_cast<int64_t>(sizeof(Number)), 0, 2);
        __builtin_prefetch(ahead + (2 * pair + 1) * kPanelRows * static_cast<int64_t>(sizeof(Number)), 0, 2);
        split_pair(row, even, even + kPanelRows);
        split_pair(row + kAmxNumbers, even + 16, even + 16 + kPanelRows);
      } else if (2 * pair < cols) {
        split_pair(row, even, nullptr);
        split_pair(row + kAmxNumbers, even + 16, nullptr);
      } else {
        for (int64_t i = 0; i < 2 * terms; ++i) _mm512_store_si512(row + i * kAmxNumbers, _mm512_setzero_si512());
      }
    }
  }
};

// y += one panel's split weights times one or two groups of tokens, x_stride apart, x_tile numbers a tile; y is [16][32] a group. Tiles 0
// to 3 hold the sums. next: moved on by `pairs` with every product of a block.
template <int groups, class Number>
PARLEY_INLINE void multiply(float* y, bool first_chunk, const Bf16* x, int64_t x_stride, int64_t x_tile, const Bf16* weights,
                            int64_t blocks, Splitter<Number>& next, int64_t pairs) {
  constexpr int64_t terms = weight_terms(static_cast<const Number*>(nullptr));
  constexpr int64_t stride = kPanelRows * sizeof(float);
  float* y1 = y + kAmxTokens * kPanelRows;
  asm volatile("" ::: "memory");  // the compiler does not know that tiles come from memory
  if (first_chunk) {
    _tile_zero(0);
    _tile_zero(1);
    if (groups == 2) _tile_zero(2);
    if (groups == 2) _tile_zero(3);
  } else {
    _tile_loadd(0, y, stride);
    _tile_loadd(1, y + 16, stride);
    if (groups == 2) _tile_loadd(2, y1, stride);
    if (groups == 2) _tile_loadd(3, y1 + 16, stride);
  }
  for (int64_t block = 0; block < blocks; ++block, x += kTokenTerms * x_tile) {
#pragma GCC unroll 2
    for (int64_t term = 0; term < terms; ++term, weights += 2 * kAmxNumbers) {
      _tile_loadd(6, weights, 64);
      _tile_loadd(7, weights + kAmxNumbers, 64);
#pragma GCC unroll 3
      for (int64_t i = 0; i < kTokenTerms - term; ++i) {
        _tile_loadd(4, x + i * x_tile, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (groups == 2) {
          _tile_loadd(5, x + x_stride + i * x_tile, 64);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
        next.advance(pairs);
      }
    }
  }
  _tile_stored(0, y, stride);
  _tile_stored(1, y + 16, stride);
  if (groups == 2) _tile_stored(2, y1, stride);
  if (groups == 2) _tile_stored(3, y1 + 16, stride);
  asm volatile("" ::: "memory");
}

// The columns [first_col, last_col) of num_panels panels, walked at once, for groups [first_group, last_group).
// y: sums, [panel][group][16][32]. weights: scratch for two chunks.
template <class Number>
void multiply_panels(const LinearCall& call, int64_t first_panel, int64_t num_panels, int64_t first_col, int64_t last_col,
                     int64_t first_group, int64_t last_group, float* y, Bf16* weights) {
  constexpr int64_t terms = weight_terms(static_cast<const Number*>(nullptr));
  constexpr int64_t sums_stride = kAmxTokens * kPanelRows;
  const int64_t chunk_cols = num_panels > 1 ? kAmxStreamCols : kAmxChunkNumbers / kPanelRows / terms;
  const int64_t num_chunks = (last_col - first_col + chunk_cols - 1) / chunk_cols * num_panels;
  const int64_t groups = last_group - first_group;
  const int64_t steps = (groups + 1) / 2 * (terms == 2 ? 5 : 3);  // of `multiply` in a block
  const int64_t pairs = (kAmxCols / 2 + steps - 1) / steps;
  const Number* panels = static_cast<const Number*>(call.weight) + first_panel * call.cols * kPanelRows;
  const int64_t rows = amx_rows(call.num_tokens, call.num_groups);
  const int64_t x_stride = amx_blocks(call.cols) * block_numbers(rows);
  const Bf16* x = static_cast<const Bf16*>(call.tokens) + first_group * x_stride;
  const auto chunk_at = [&](int64_t c) {  // empty behind the last
    const int64_t k = first_col + c / num_panels * chunk_cols;
    const int64_t width = c >= num_chunks ? 0 : last_col - k < chunk_cols ? last_col - k : chunk_cols;
    const Number* chunk = panels + (c % num_panels * call.cols + k) * kPanelRows;
    // What takes the place of this chunk: the panel's next one, or the first of the panel behind all these.
    const Number* ahead = chunk + (k + width < call.cols ? width : (num_panels - 1) * call.cols + width) * kPanelRows;
    return Splitter<Number>{weights + c % 2 * kAmxChunkNumbers, chunk, width, reinterpret_cast<const char*>(ahead)};
  };
  Splitter<Number> chunk = chunk_at(0);
  chunk.advance(chunk_cols);
  for (int64_t c = 0; c < num_chunks; ++c) {
    Splitter<Number> next = chunk_at(c + 1);
    const int64_t blocks = amx_blocks(chunk.cols);
    const int64_t k = first_col + c / num_panels * chunk_cols;
    const int64_t panel = c % num_panels;
    const Bf16* tokens = x + k / kAmxCols * block_numbers(rows);
    float* sums = y + panel * groups * sums_stride;
    for (int64_t group = first_group; group < last_group; group += 2, tokens += 2 * x_stride, sums += 2 * sums_stride) {
      const int64_t stop = group + 2 < last_group ? group + 2 : last_group;
      if (k + chunk.cols == call.cols) {
        prefetch_outputs(call, first_token_of(call, group), first_token_of(call, stop) - first_token_of(call, group), first_panel + panel);
      }
      if (stop == group + 2) {
        multiply<2>(sums, k == 0, tokens, x_stride, rows * kAmxCols, chunk.to, blocks, next, pairs);
      } else {
        multiply<1>(sums, k == 0, tokens, x_stride, rows * kAmxCols, chunk.to, blocks, next, pairs);
      }
    }
    next.advance(chunk_cols);
    chunk = next;
  }
}

template <class Number>
void linear_amx_of(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t first_group, int64_t last_group,
                   float* scratch) {
  const int64_t groups = last_group - first_group;
  const int64_t at_once = groups <= kStreamGroups ? kStreamPanels : 1;
  Bf16* weights = reinterpret_cast<Bf16*>(scratch);
  float* y = scratch + kAmxChunkNumbers;
  const int64_t y_panel = groups * kAmxTokens * kPanelRows;
  // If the tokens do not fit into the cache, slices of their columns; then the sums of many panels wait for the next slice.
  const int64_t most_blocks = kAmxTokenBytes / (groups * block_numbers(kAmxTokens) * static_cast<int64_t>(sizeof(Bf16)));
  const int64_t num_slices = (amx_blocks(call.cols) + most_blocks - 1) / most_blocks;
  const int64_t slice_cols = (amx_blocks(call.cols) + num_slices - 1) / num_slices * kAmxCols;
  const int64_t batch = num_slices == 1 ? at_once : kAmxSums / groups / at_once * at_once;
  for (int64_t start = first_panel; start < last_panel; start += batch) {
    const int64_t stop = start + batch < last_panel ? start + batch : last_panel;
    for (int64_t k = 0; k < call.cols; k += slice_cols) {
      const int64_t last_col = k + slice_cols < call.cols ? k + slice_cols : call.cols;
      for (int64_t panel = start; panel < stop; panel += at_once) {
        multiply_panels<Number>(call, panel, panel + at_once < stop ? at_once : stop - panel, k, last_col, first_group, last_group,
                                y + (panel - start) * y_panel, weights);
      }
    }
    for (int64_t panel = start; panel < stop; ++panel) {
      for (int64_t group = first_group; group < last_group; ++group) {
        const int64_t first_token = first_token_of(call, group);
        finish_tokens(call, first_token, first_token_of(call, group + 1) - first_token, panel,
                      y + (panel - start) * y_panel + (group - first_group) * kAmxTokens * kPanelRows);
      }
    }
  }
}

// The panels [first_panel, last_panel) for one block of token groups.
void linear_amx(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t first_group, int64_t last_group,
                float* scratch) {
  // Palette 1: eight tiles of at most 16 rows of 64 bytes. Only as many rows as the groups have tokens.
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t start = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  const uint8_t rows = static_cast<uint8_t>(amx_rows(call.num_tokens, call.num_groups));
  const bool streams = call.dtype == NumberType::float16 && last_group - first_group == 1;
  const int token_tiles = streams ? 7 : 6;  // and those of sums
  for (int i = 0; i < token_tiles; ++i) config.rows[i] = rows;
  _tile_loadconfig(&config);
  if (streams) {
    stream_amx(call, first_panel, last_panel, first_group, scratch);
  } else if (call.dtype == NumberType::float16) {
    linear_amx_of<Fp16>(call, first_panel, last_panel, first_group, last_group, scratch);
  } else {
    linear_amx_of<Bf16>(call, first_panel, last_panel, first_group, last_group, scratch);
  }
  _tile_release();
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

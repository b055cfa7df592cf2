// `linear` for a number of tokens between those of linear_stream.h and those of linear_blocked.h, on machines with 16 registers: 16-bit
// weights are widened anew for each group of tokens, a register tile is half a panel times a group, and several panels are walked at
// once. With 32 registers nothing lies between the other two.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_finish.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// Columns taken at a time of each of the panels that are walked at once: 4 KiB of 16-bit weights.
constexpr int64_t kTileCols = 64;

constexpr int64_t kHalves = kPanelRows / kLanes;

// Adds `cols` columns to y [tokens][32], the sums of one panel for one group of `tokens` whose x is [cols][tokens]; the first chunk
// starts from 0 instead of y. Meanwhile asks for the memory at `ahead`, ahead_bytes further for each column of each half.
template <int tokens, class Number>
void tile(float* y, bool first_chunk, const void* panel, const float* x, int64_t cols, const char* ahead, int64_t ahead_bytes) {
  for (int64_t half = 0; half < kHalves; ++half, y += kLanes) {
    const Number* w = static_cast<const Number*>(panel) + half * kLanes;
    Vec acc[tokens];
#pragma GCC unroll 6
    for (int t = 0; t < tokens; ++t) acc[t] = first_chunk ? zero() : load(y + t * kPanelRows);
    const float* token = x;
    for (int64_t k = 0; k < cols; ++k, w += kPanelRows, token += tokens, ahead += ahead_bytes) {
      __builtin_prefetch(ahead);
      const Vec weight = load(w);
#pragma GCC unroll 6
      for (int t = 0; t < tokens; ++t) acc[t] = fma(broadcast(token[t]), weight, acc[t]);
    }
#pragma GCC unroll 6
    for (int t = 0; t < tokens; ++t) store(y + t * kPanelRows, acc[t]);
  }
}

using Tile = void (*)(float* y, bool first_chunk, const void* panel, const float* x, int64_t cols, const char* ahead,
                      int64_t ahead_bytes);

// kTiles<Number>[n - 1] is the tile for n tokens.
template <class Number>
constexpr Tile kTiles[kGroupTokens] = {
    tile<1, Number>, tile<2, Number>, tile<3, Number>,
#if PARLEY_LEVEL > 0
    tile<4, Number>, tile<5, Number>, tile<6, Number>,
#endif
};

PARLEY_INLINE Tile choose_tile(NumberType dtype, int64_t tokens) {
  return dtype == NumberType::float32   ? kTiles<float>[tokens - 1]
         : dtype == NumberType::float16 ? kTiles<Fp16>[tokens - 1]
                                        : kTiles<Bf16>[tokens - 1];
}

// num_panels panels, walked at once. y: [panel][num_tokens][32].
void multiply_tiles(const LinearCall& call, int64_t first_panel, int64_t num_panels, float* y) {
  const int64_t cols = call.cols;
  const int64_t column_bytes = kPanelRows * (call.dtype == NumberType::float32 ? 4 : 2);
  const char* panels = static_cast<const char*>(call.weight) + first_panel * cols * column_bytes;
  const float* x = static_cast<const float*>(call.tokens);
  const int64_t ahead_bytes = column_bytes / (call.num_groups * kHalves);
  const int64_t y_stride = call.num_tokens * kPanelRows;

  for (int64_t k = 0; k < cols; k += kTileCols) {
    const int64_t width = cols - k < kTileCols ? cols - k : kTileCols;
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const char* chunk = panels + (panel * cols + k) * column_bytes;
      // This panel's next chunk, or that of the panel which takes its place, comes from memory while the others are worked on: evenly
      // over both halves of all groups, for in a burst it would fill the core's miss buffers.
      const char* ahead = chunk + (k + width < cols ? width : (num_panels - 1) * cols + width) * column_bytes;
      for (int64_t group = 0; group < call.num_groups; ++group) {
        const int64_t first_token = call.num_tokens * group / call.num_groups;
        const int64_t tokens = call.num_tokens * (group + 1) / call.num_groups - first_token;
        if (k + width == cols) prefetch_outputs(call, first_token, tokens, first_panel + panel);
        choose_tile(call.dtype, tokens)(y + panel * y_stride + first_token * kPanelRows, k == 0, chunk,
                                        x + first_token * cols + k * tokens, width, ahead, ahead_bytes);
        ahead += width * column_bytes / call.num_groups;
      }
    }
  }
  for (int64_t panel = 0; panel < num_panels; ++panel) finish_tokens(call, 0, call.num_tokens, first_panel + panel, y + panel * y_stride);
}

// The panels [first_panel, last_panel). y: scratch.
void linear_tile(const LinearCall& call, int64_t first_panel, int64_t last_panel, float* y) {
  for (int64_t panel = first_panel; panel < last_panel; panel += kStreamPanels) {
    multiply_tiles(call, panel, panel + kStreamPanels < last_panel ? kStreamPanels : last_panel - panel, y);
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

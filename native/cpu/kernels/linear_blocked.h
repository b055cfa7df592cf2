// `linear` by fused multiply-adds for many tokens: what counts is that the multipliers never wait. A chunk of weights is widened once
// into the first-level cache and meets all tokens of a block, which lie in the second-level cache, tile by tile. Every output has the
// order of summation that linear_stream.h names.
//
// The tile is as square as the registers allow: 6 tokens x 64 outputs load 10 vectors for 24 multiplications where 12 x 32 would load
// 14. On a core whose other thread is busy loads and instructions, not multiplications, are what runs out.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_finish.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// Panels that are widened at once, and the strips of kBlockedVecs vectors of outputs that they make.
constexpr int kBlockedPanels = kBlockedVecs * kLanes > kPanelRows ? kBlockedVecs * kLanes / kPanelRows : 1;

// Columns of a chunk, which takes half the first-level cache of a core with 48 KiB.
constexpr int64_t kBlockedCols = 24 * 1024 / (kBlockedPanels * kPanelRows * static_cast<int64_t>(sizeof(float)));

// Most tokens of a block: their sums lie in the second-level cache too. And most bytes of its activations.
constexpr int64_t kBlockTokens = 48 * kGroupTokens;
constexpr int64_t kBlockBytes = 1536 * 1024;

constexpr int64_t kBlockedScratch = (kBlockedCols + kBlockTokens) * kBlockedPanels * kPanelRows;

// Most token groups of a block.
int64_t blocked_groups(int64_t cols) {
  const int64_t groups = kBlockBytes / (kGroupTokens * cols * static_cast<int64_t>(sizeof(float)));
  return groups < 1 ? 1 : groups * kGroupTokens < kBlockTokens ? groups : kBlockTokens / kGroupTokens;
}

// Adds `cols` columns to y, `tokens` rows of `vecs` vectors of sums, y_stride apart. wide: [cols][vecs][16]; x: [cols][tokens]. The first
// chunk starts from 0 instead of y. Meanwhile asks for memory of each panel from `ahead` on, ahead_bytes further every other column.
template <int tokens, int vecs>
void blocked_tile(float* y, int64_t y_stride, bool first_chunk, const float* wide, const float* x, int64_t cols, const char* ahead,
                  int64_t ahead_bytes, int64_t panel_bytes) {
  Vec acc[tokens][vecs];
#pragma GCC unroll 6
  for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) acc[t][v] = first_chunk ? zero() : load(y + t * y_stride + v * kLanes);
  }
  const auto add_column = [&](int64_t k) __attribute__((always_inline)) {
    Vec weight[vecs];
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) weight[v] = load(wide + (k * vecs + v) * kLanes);
#pragma GCC unroll 6
    for (int t = 0; t < tokens; ++t) {
      const Vec factor = broadcast(x[k * tokens + t]);
#pragma GCC unroll 4
      for (int v = 0; v < vecs; ++v) acc[t][v] = fma(factor, weight[v], acc[t][v]);
    }
  };
  for (; cols >= 2; cols -= 2, wide += 2 * vecs * kLanes, x += 2 * tokens, ahead += ahead_bytes) {
    __builtin_prefetch(ahead, 0, 2);
    if (vecs * kLanes > kPanelRows) __builtin_prefetch(ahead + panel_bytes, 0, 2);
    add_column(0);
    add_column(1);
  }
  if (cols > 0) add_column(0);
#pragma GCC unroll 6
  for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) store(y + t * y_stride + v * kLanes, acc[t][v]);
  }
}

using BlockedTile = void (*)(float* y, int64_t y_stride, bool first_chunk, const float* wide, const float* x, int64_t cols,
                             const char* ahead, int64_t ahead_bytes, int64_t panel_bytes);

// kBlockedTiles<vecs>[n - 1] is the tile for n tokens.
template <int vecs>
constexpr BlockedTile kBlockedTiles[kGroupTokens] = {
    blocked_tile<1, vecs>, blocked_tile<2, vecs>, blocked_tile<3, vecs>,
#if PARLEY_LEVEL > 0
    blocked_tile<4, vecs>, blocked_tile<5, vecs>, blocked_tile<6, vecs>,
#endif
};

// wide [strip][cols][vecs][16] = `cols` columns of panels that lie panel_numbers apart.
template <int vecs, class Number>
void widen(float* wide, const Number* chunk, int64_t panel_numbers, int64_t panels, int64_t cols) {
  constexpr int64_t panel_vecs = kPanelRows / kLanes;
  for (int64_t v = 0; v < panels * panel_vecs; ++v) {
    const Number* from = chunk + v / panel_vecs * panel_numbers + v % panel_vecs * kLanes;
    float* to = wide + (v / vecs * cols * vecs + v % vecs) * kLanes;
    for (int64_t k = 0; k < cols; ++k) store(to + k * vecs * kLanes, load(from + k * kPanelRows));
  }
}

template <int vecs, class Number>
void multiply_blocked(const LinearCall& call, int64_t first_panel, int64_t panels, int64_t first_group, int64_t last_group, float* scratch) {
  const int64_t cols = call.cols;
  const int64_t panel_numbers = cols * kPanelRows;
  const Number* weight = static_cast<const Number*>(call.weight) + first_panel * panel_numbers;
  const float* x = static_cast<const float*>(call.tokens);
  const auto first_token_of = [&](int64_t group) { return call.num_tokens * group / call.num_groups; };
  const int64_t block_start = first_token_of(first_group);
  const int64_t strips = panels * kPanelRows / (vecs * kLanes);
  const int64_t walks = (last_group - first_group) * strips;
  float* wide = scratch;
  float* y = scratch + kBlockedCols * kBlockedPanels * kPanelRows;  // [tokens of the block][panels x 32]
  const int64_t y_stride = panels * kPanelRows;

  for (int64_t k = 0; k < cols; k += kBlockedCols) {
    const int64_t width = cols - k < kBlockedCols ? cols - k : kBlockedCols;
    const Number* chunk = weight + k * kPanelRows;
    widen<vecs>(wide, chunk, panel_numbers, panels, width);
    // The next chunk, or the first of the panels that come then, is brought from memory meanwhile: evenly over all walks.
    const Number* next = chunk + width * kPanelRows + (k + width < cols ? 0 : (panels - 1) * panel_numbers);
    const char* ahead = reinterpret_cast<const char*>(next);
    const int64_t column_bytes = kPanelRows * static_cast<int64_t>(sizeof(Number));
    for (int64_t group = first_group; group < last_group; ++group) {
      const int64_t first_token = first_token_of(group);
      const int64_t tokens = first_token_of(group + 1) - first_token;
      if (k + width == cols) prefetch_outputs(call, first_token, tokens, first_panel, panels);
      for (int64_t strip = 0; strip < strips; ++strip) {
        kBlockedTiles<vecs>[tokens - 1](y + (first_token - block_start) * y_stride + strip * vecs * kLanes, y_stride, k == 0,
                                        wide + strip * width * vecs * kLanes, x + first_token * cols + k * tokens, width, ahead,
                                        2 * column_bytes / walks, panel_numbers * static_cast<int64_t>(sizeof(Number)));
        ahead += width * column_bytes / walks;
      }
      if (k + width == cols) finish_tokens(call, first_token, tokens, first_panel, y + (first_token - block_start) * y_stride, panels);
    }
  }
}

template <class Number>
void linear_blocked_of(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t first_group, int64_t last_group,
                       float* scratch) {
  constexpr int vecs_alone = kBlockedPanels > 1 ? kPanelRows / kLanes : kBlockedVecs;
  for (int64_t panel = first_panel; panel < last_panel;) {
    if (panel + kBlockedPanels <= last_panel) {
      multiply_blocked<kBlockedVecs, Number>(call, panel, kBlockedPanels, first_group, last_group, scratch);
      panel += kBlockedPanels;
    } else {
      multiply_blocked<vecs_alone, Number>(call, panel, 1, first_group, last_group, scratch);
      ++panel;
    }
  }
}

// The panels [first_panel, last_panel) for one block of token groups.
void linear_blocked(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t first_group, int64_t last_group,
                    float* scratch) {
  if (call.dtype == NumberType::float32) return linear_blocked_of<float>(call, first_panel, last_panel, first_group, last_group, scratch);
  if (call.dtype == NumberType::float16) return linear_blocked_of<Fp16>(call, first_panel, last_panel, first_group, last_group, scratch);
  linear_blocked_of<Bf16>(call, first_panel, last_panel, first_group, last_group, scratch);
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

// `linear` by fused multiply-adds. A register tile is one panel times a group of tokens. Every output is computed as
// acc = fma(x[k], w[k], acc) for k = 0, 1, ... from acc = 0: neither the tile nor the token's neighbours can change its bits.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_finish.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// Columns taken at a time when a panel serves many groups of tokens: 16 KiB of float32 weights, half the first-level cache.
constexpr int64_t kChunkCols = 128;

// The same with few groups, when the weights come from memory and several panels are walked at once: 4 KiB of 16-bit weights.
constexpr int64_t kStreamCols = 64;

// How often a tile of so many tokens goes over its columns: once if it is as wide as the panel, else once for each half.
constexpr int64_t walks_of(int64_t tokens) { return tokens <= kWideTokens && PARLEY_LEVEL > 0 ? 1 : kPanelRows / kLanes; }

// Adds `cols` columns to y [tokens][32], the sums of one panel for one group of `tokens` whose x is [cols][tokens]; the first chunk
// starts from 0 instead of y. Meanwhile asks for the memory at `ahead`, ahead_bytes further for each column of each walk.
template <int tokens, class Number>
void tile(float* y, bool first_chunk, const void* panel, const float* x, int64_t cols, const char* ahead, int64_t ahead_bytes) {
  constexpr int vecs = static_cast<int>(kPanelRows / kLanes / walks_of(tokens));
  for (int first = 0; first < kPanelRows; first += vecs * kLanes) {
    const Number* w = static_cast<const Number*>(panel) + first;
    Vec acc[tokens][vecs];
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < vecs; ++v) acc[t][v] = zero();
    }
    if (!first_chunk) {
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
        for (int v = 0; v < vecs; ++v) acc[t][v] = load(y + t * kPanelRows + first + v * kLanes);
      }
    }
    const float* token = x;
    for (int64_t k = 0; k < cols; ++k) {
      __builtin_prefetch(ahead);
      if (sizeof(Number) == 4 && vecs == 2) __builtin_prefetch(ahead + 64);  // a column of float32 is two lines
      ahead += ahead_bytes;
      Vec weight[vecs];
#pragma GCC unroll 2
      for (int v = 0; v < vecs; ++v) weight[v] = load(w + v * kLanes);
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        const Vec factor = broadcast(token[t]);
#pragma GCC unroll 2
        for (int v = 0; v < vecs; ++v) acc[t][v] = fma(factor, weight[v], acc[t][v]);
      }
      w += kPanelRows;
      token += tokens;
    }
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < vecs; ++v) store(y + t * kPanelRows + first + v * kLanes, acc[t][v]);
    }
  }
}

using Tile = void (*)(float* y, bool first_chunk, const void* panel, const float* x, int64_t cols, const char* ahead,
                      int64_t ahead_bytes);

// kTiles<Number>[n - 1] is the tile for n tokens.
template <class Number>
constexpr Tile kTiles[kTileTokens] = {
    tile<1, Number>,  tile<2, Number>,  tile<3, Number>,
#if PARLEY_LEVEL > 0
    tile<4, Number>,  tile<5, Number>,  tile<6, Number>,
#endif
#if PARLEY_LEVEL > 1
    tile<7, Number>,  tile<8, Number>,  tile<9, Number>,
    tile<10, Number>, tile<11, Number>, tile<12, Number>,
#endif
};

PARLEY_INLINE Tile choose_tile(NumberType dtype, int64_t tokens) {
  return dtype == NumberType::float32   ? kTiles<float>[tokens - 1]
         : dtype == NumberType::float16 ? kTiles<Fp16>[tokens - 1]
                                        : kTiles<Bf16>[tokens - 1];
}

PARLEY_INLINE void widen_panel(float* wide, const char* panel, NumberType dtype, int64_t cols) {
  if (dtype == NumberType::float16) {
    const Fp16* numbers = reinterpret_cast<const Fp16*>(panel);
    for (int64_t i = 0; i < cols * kPanelRows; i += kLanes) store(wide + i, load(numbers + i));
  } else {
    const Bf16* numbers = reinterpret_cast<const Bf16*>(panel);
    for (int64_t i = 0; i < cols * kPanelRows; i += kLanes) store(wide + i, load(numbers + i));
  }
}

// num_panels panels, walked at once, for one block of token groups.
void multiply_panels_fma(const LinearCall& call, int64_t first_panel, int64_t num_panels, int64_t first_group, int64_t last_group,
                float* scratch) {
  const int64_t cols = call.cols;
  const int64_t row_bytes = kPanelRows * (call.dtype == NumberType::float32 ? 4 : 2);  // of one column of a panel
  const char* panels = static_cast<const char*>(call.weight) + first_panel * cols * row_bytes;
  const float* x = static_cast<const float*>(call.tokens);
  const auto first_token_of = [&](int64_t group) { return call.num_tokens * group / call.num_groups; };
  const int64_t block_start = first_token_of(first_group);
  const int64_t groups = last_group - first_group;
  float* y = scratch + kChunkCols * kPanelRows;  // [panel][tokens of the block][32]
  const int64_t y_stride = (first_token_of(last_group) - block_start) * kPanelRows;

  const bool widen = call.dtype != NumberType::float32 && groups >= kWidenGroups;
  const int64_t chunk_cols = groups <= kStreamGroups ? kStreamCols : kChunkCols;
  for (int64_t k = 0; k < cols; k += chunk_cols) {
    const int64_t width = cols - k < chunk_cols ? cols - k : chunk_cols;
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const char* chunk = panels + (panel * cols + k) * row_bytes;
      // This panel's next chunk, or that of the panel which takes its place, comes from memory while the others are worked on: evenly
      // over all walks of all groups, for in a burst it would fill the core's miss buffers.
      const char* ahead = chunk + (k + width < cols ? width : (num_panels - 1) * cols + width) * row_bytes;
      const void* weights = chunk;
      NumberType dtype = call.dtype;
      if (widen) {
        widen_panel(scratch, chunk, dtype, width);
        weights = scratch;
        dtype = NumberType::float32;
      }
      for (int64_t group = first_group; group < last_group; ++group) {
        const int64_t first_token = first_token_of(group);
        const int64_t tokens = first_token_of(group + 1) - first_token;
        if (k + width == cols) prefetch_outputs(call, first_token, tokens, first_panel + panel);
        const int64_t ahead_bytes = row_bytes / (groups * walks_of(tokens));
        choose_tile(dtype, tokens)(y + panel * y_stride + (first_token - block_start) * kPanelRows, k == 0, weights,
                                   x + first_token * cols + k * tokens, width, ahead, ahead_bytes);
        ahead += width * row_bytes / groups;
      }
    }
  }
  for (int64_t panel = 0; panel < num_panels; ++panel) {
    finish_tokens(call, block_start, first_token_of(last_group) - block_start, first_panel + panel, y + panel * y_stride);
  }
}

// One group alone: its sums stay in registers from the first column to the last, and as many panels are walked at once as there are
// registers for, kRunCols columns of one after those of the other. Short runs keep the machine's own prefetching going in all of them.
constexpr int64_t kRunCols = 8;
constexpr int64_t kAheadCols = 64;

constexpr int stream_panels(int tokens) {
  const int panels = kStreamSums * static_cast<int>(kLanes) / static_cast<int>(kPanelRows) / tokens;
  return panels < kStreamPanels ? panels : static_cast<int>(kStreamPanels);
}

// y [panel][tokens][32] = the sums of `panels` panels, x [cols][tokens].
template <int tokens, int panels, class Number>
void stream(float* y, const void* weight, const float* x, int64_t cols) {
  constexpr int vecs = static_cast<int>(kPanelRows / kLanes);
  Vec acc[panels][tokens][vecs];
#pragma GCC unroll 4
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < vecs; ++v) acc[p][t][v] = zero();
    }
  }
  for (int64_t k = 0; k < cols; k += kRunCols) {
    const int64_t width = cols - k < kRunCols ? cols - k : kRunCols;
    // Behind a panel's end lies the one that will take its place.
    const int64_t ahead = (k + kAheadCols < cols ? kAheadCols : kAheadCols + (panels - 1) * cols) * kPanelRows;
#pragma GCC unroll 4
    for (int p = 0; p < panels; ++p) {
      const Number* w = static_cast<const Number*>(weight) + (p * cols + k) * kPanelRows;
      const float* token = x + k * tokens;
      for (int64_t i = 0; i < width; ++i, w += kPanelRows, token += tokens) {
        __builtin_prefetch(w + ahead);
        if (sizeof(Number) == 4) __builtin_prefetch(w + ahead + kLanes);  // a column of float32 is two lines
        Vec numbers[vecs];
#pragma GCC unroll 2
        for (int v = 0; v < vecs; ++v) numbers[v] = load(w + v * kLanes);
#pragma GCC unroll 12
        for (int t = 0; t < tokens; ++t) {
          const Vec factor = broadcast(token[t]);
#pragma GCC unroll 2
          for (int v = 0; v < vecs; ++v) acc[p][t][v] = fma(factor, numbers[v], acc[p][t][v]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < vecs; ++v) store(y + (p * tokens + t) * kPanelRows + v * kLanes, acc[p][t][v]);
    }
  }
}

using Stream = void (*)(float* y, const void* weight, const float* x, int64_t cols);

// kStreams<Number, false>[n - 1] takes n tokens and stream_panels(n) panels, kStreams<Number, true>[n - 1] a panel that is left over.
template <class Number, bool one_panel, int tokens>
constexpr Stream kStream = stream<tokens, one_panel ? 1 : stream_panels(tokens), Number>;
template <class Number, bool one_panel>
constexpr Stream kStreams[kWideTokens] = {
    kStream<Number, one_panel, 1>,
#if PARLEY_LEVEL > 0
    kStream<Number, one_panel, 2>,
#endif
#if PARLEY_LEVEL > 1
    kStream<Number, one_panel, 3>, kStream<Number, one_panel, 4>,  kStream<Number, one_panel, 5>,  kStream<Number, one_panel, 6>,
    kStream<Number, one_panel, 7>, kStream<Number, one_panel, 8>,  kStream<Number, one_panel, 9>,  kStream<Number, one_panel, 10>,
    kStream<Number, one_panel, 11>, kStream<Number, one_panel, 12>,
#endif
};

template <class Number>
void stream_panels_fma(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t group, float* y) {
  const int64_t first_token = call.num_tokens * group / call.num_groups;
  const int64_t tokens = call.num_tokens * (group + 1) / call.num_groups - first_token;
  const float* x = static_cast<const float*>(call.tokens) + first_token * call.cols;
  const int64_t at_once = stream_panels(static_cast<int>(tokens));
  for (int64_t panel = first_panel; panel < last_panel;) {
    const int64_t panels = panel + at_once <= last_panel ? at_once : 1;
    const Number* weight = static_cast<const Number*>(call.weight) + panel * call.cols * kPanelRows;
    (panels == at_once ? kStreams<Number, false> : kStreams<Number, true>)[tokens - 1](y, weight, x, call.cols);
    for (const int64_t stop = panel + panels; panel < stop; ++panel) {
      finish_tokens(call, first_token, tokens, panel, y + (panels - (stop - panel)) * tokens * kPanelRows);
    }
  }
}

// The panels [first_panel, last_panel) for one block of token groups.
void linear_fma(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t first_group, int64_t last_group,
                float* scratch) {
  if (last_group - first_group == 1 && (call.num_tokens + call.num_groups - 1) / call.num_groups <= kWideTokens) {
    if (call.dtype == NumberType::float32) return stream_panels_fma<float>(call, first_panel, last_panel, first_group, scratch);
    if (call.dtype == NumberType::float16) return stream_panels_fma<Fp16>(call, first_panel, last_panel, first_group, scratch);
    return stream_panels_fma<Bf16>(call, first_panel, last_panel, first_group, scratch);
  }
  const int64_t at_once = last_group - first_group <= kStreamGroups ? kStreamPanels : 1;
  for (int64_t panel = first_panel; panel < last_panel; panel += at_once) {
    const int64_t panels = panel + at_once < last_panel ? at_once : last_panel - panel;
    multiply_panels_fma(call, panel, panels, first_group, last_group, scratch);
  }
}

constexpr int64_t kFmaScratch = (kChunkCols + kBlockGroups * kTileTokens) * kPanelRows;

// Activations of one block of tokens. The inner loop reads them at 2 bytes a cycle, which the third-level cache gives too; and the larger
// the block, the less often weights are read and widened.
constexpr int64_t kFmaBlockBytes = 1536 * 1024;

int64_t packed_bytes_fma(int64_t num_tokens, int64_t cols) { return num_tokens * cols * static_cast<int64_t>(sizeof(float)); }

LinearPlan plan_fma(int64_t num_tokens, int64_t cols) {
  const int64_t num_groups = (num_tokens + kTileTokens - 1) / kTileTokens;
  int64_t block_groups = kFmaBlockBytes / packed_bytes_fma(kTileTokens, cols);
  block_groups = block_groups < 1 ? 1 : block_groups > kBlockGroups ? kBlockGroups : block_groups;
  return {num_groups, (num_groups + block_groups - 1) / block_groups, num_tokens == 1 ? 0 : packed_bytes_fma(num_tokens, cols)};
}

// Tokens: per group [cols][tokens of the group], one group after the other.
void pack_tokens_fma(float* packed, const float* x, int64_t x_stride, int64_t num_tokens, int64_t num_groups, int64_t cols,
                     int64_t first_col, int64_t last_col) {
  for (int64_t group = 0; group < num_groups; ++group) {
    const int64_t first_token = num_tokens * group / num_groups;
    const int64_t tokens = num_tokens * (group + 1) / num_groups - first_token;
    float* target = packed + first_token * cols;
    // 64 columns at a time, so that the lines written stay in the first-level cache while all tokens fill them.
    for (int64_t start = first_col; start < last_col; start += 64) {
      const int64_t stop = start + 64 < last_col ? start + 64 : last_col;
      for (int64_t t = 0; t < tokens; ++t) {
        const float* source = x + (first_token + t) * x_stride;
        float* column = target + start * tokens + t;
        for (int64_t k = start; k < stop; ++k, column += tokens) *column = source[k];
      }
    }
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

// y = x W^T + bias, then an epilogue.
//
// W is packed in panels of 32 outputs, [cols][32], so that a step of the inner loop reads one run of memory. A register tile is one
// panel times a group of tokens. Every output is computed as acc = fma(x[k], w[k], acc) for k = 0, 1, ... from acc = 0, then + bias:
// neither the tile nor the token's neighbours can change its bits.
#pragma once

#include "cpu/kernels/activation.h"
#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// How far ahead of the arithmetic a weight that is used once is asked for. Memory latency times one core's bandwidth is about 3 KiB;
// measured on Zen 4, 8 KiB is a little better than 4 at batch 1 and 4.
constexpr int64_t kPrefetchBytes = 8192;

// Columns taken at a time when a panel serves several groups of tokens: 16 KiB of float32 weights, half the first-level cache.
constexpr int64_t kChunkCols = 128;

// Adds `cols` columns to y [tokens][32], the sums of one panel for one group of `tokens` whose x is [cols][tokens]; the first chunk
// starts from 0 instead of y. Meanwhile asks for the memory at `ahead`, ahead_bytes for each column.
template <int tokens, class Number>
void tile(float* y, bool first_chunk, const void* panel, const float* x, int64_t cols, const char* ahead, int64_t ahead_bytes) {
  constexpr int vecs = tokens <= kWideTokens && PARLEY_LEVEL > 0 ? 2 : 1;
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
      if (first == 0) {
        __builtin_prefetch(ahead);
        if (sizeof(Number) == 4) __builtin_prefetch(ahead + 64);
        ahead += ahead_bytes;
      }
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

template <class Number>
void widen_panel(float* wide, const Number* panel, int64_t cols) {
  for (int64_t i = 0; i < cols * kPanelRows; i += kLanes) store(wide + i, load(panel + i));
}

// Bias and epilogue of one vector of sums. `out` is where they go; n < 16 at the end of the last panel.
template <int epilogue>
PARLEY_INLINE void finish(float* out, Vec y, const float* bias, int64_t n) {
  const bool whole = n >= kLanes;
  if (bias) y = y + (whole ? load(bias) : load_partial(bias, n));
  if (epilogue == 1) y = gelu(y);
  if (epilogue == 2) y = gelu_tanh(y);
  if (epilogue == 3) y = relu(y);
  if (epilogue == 4) y = (whole ? load(out) : load_partial(out, n)) + y;
  if (epilogue == 5) y = silu(y);
  if (whole) {
    store(out, y);
  } else {
    store_partial(out, y, n);
  }
}

template <int epilogue>
void finish_tile(float* out, int64_t out_stride, const float* y, int64_t tokens, const float* bias, int64_t outputs) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < outputs; i += kLanes) {
      finish<epilogue>(out + t * out_stride + i, load(y + t * kPanelRows + i), bias ? bias + i : nullptr, outputs - i);
    }
  }
}

PARLEY_INLINE void finish_group(const LinearCall& call, int64_t first_token, int64_t tokens, int64_t first_output, int64_t outputs,
                                const float* y) {
  float* out = call.out + first_token * call.out_stride + first_output;
  const float* bias = call.bias ? call.bias + first_output : nullptr;
  switch (call.epilogue) {
    case 0: finish_tile<0>(out, call.out_stride, y, tokens, bias, outputs); break;
    case 1: finish_tile<1>(out, call.out_stride, y, tokens, bias, outputs); break;
    case 2: finish_tile<2>(out, call.out_stride, y, tokens, bias, outputs); break;
    case 3: finish_tile<3>(out, call.out_stride, y, tokens, bias, outputs); break;
    case 4: finish_tile<4>(out, call.out_stride, y, tokens, bias, outputs); break;
    default: finish_tile<5>(out, call.out_stride, y, tokens, bias, outputs); break;
  }
}

// One panel for one block of token groups.
void linear_task(const LinearCall& call, int64_t panel_index, int64_t first_group, int64_t last_group, float* scratch) {
  const int64_t cols = call.cols;
  const int64_t row_bytes = kPanelRows * (call.dtype == NumberType::float32 ? 4 : 2);  // of one column of the panel
  const char* panel = static_cast<const char*>(call.weight) + panel_index * cols * row_bytes;
  const int64_t first_output = panel_index * kPanelRows;
  const int64_t outputs = call.rows - first_output < kPanelRows ? call.rows - first_output : kPanelRows;
  const auto first_token_of = [&](int64_t group) { return call.num_tokens * group / call.num_groups; };
  const int64_t block_start = first_token_of(first_group);
  float* y = scratch + kChunkCols * kPanelRows;  // [tokens of the block][32]

  const bool one_group = last_group - first_group == 1;
  const bool widen = call.dtype != NumberType::float32 && last_group - first_group >= kWidenGroups;
  // A tile 16 outputs wide walks its columns twice, so a lone one comes in chunks too.
  const bool one_walk = one_group && (kWideTokens == kTileTokens || call.num_tokens <= kWideTokens);
  const int64_t chunk_cols = one_walk ? cols : kChunkCols;
  for (int64_t k = 0; k < cols; k += chunk_cols) {
    const int64_t width = cols - k < chunk_cols ? cols - k : chunk_cols;
    const char* chunk = panel + k * row_bytes;
    const void* weights = chunk;
    NumberType dtype = call.dtype;
    if (widen) {
      if (dtype == NumberType::float16) {
        widen_panel(scratch, reinterpret_cast<const Fp16*>(chunk), width);
      } else {
        widen_panel(scratch, reinterpret_cast<const Bf16*>(chunk), width);
      }
      weights = scratch;
      dtype = NumberType::float32;
    }
    // The first group asks for the next chunk of the stream, the others have nothing to ask for.
    const char* ahead = one_walk ? chunk + kPrefetchBytes : chunk + width * row_bytes;
    int64_t ahead_bytes = row_bytes;
    for (int64_t group = first_group; group < last_group; ++group) {
      const int64_t first_token = first_token_of(group);
      const int64_t tokens = first_token_of(group + 1) - first_token;
      choose_tile(dtype, tokens)(y + (first_token - block_start) * kPanelRows, k == 0, weights,
                                 call.packed_x + first_token * cols + k * tokens, width, ahead, ahead_bytes);
      ahead_bytes = 0;
    }
  }
  for (int64_t group = first_group; group < last_group; ++group) {
    const int64_t first_token = first_token_of(group);
    finish_group(call, first_token, first_token_of(group + 1) - first_token, first_output, outputs,
                 y + (first_token - block_start) * kPanelRows);
  }
}

void linear(const LinearCall& call, int64_t first_task, int64_t last_task, float* scratch) {
  const int64_t num_panels = (call.rows + kPanelRows - 1) / kPanelRows;
  for (int64_t task = first_task; task < last_task; ++task) {
    const int64_t block = task / num_panels;
    linear_task(call, task % num_panels, call.num_groups * block / call.num_blocks,
                call.num_groups * (block + 1) / call.num_blocks, scratch);
  }
}

constexpr int64_t kLinearScratch = (kChunkCols + kBlockGroups * kTileTokens) * kPanelRows;

void pack_tokens(float* packed, const float* x, int64_t x_stride, int64_t num_tokens, int64_t num_groups, int64_t cols,
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

// `linear` for so few tokens that the weights' way from memory is what counts: up to kStreamTokens of them, or a second group of as many, for which
// the panels are in the second-level cache. Their sums stay in registers from the first column to the last, and as many panels are walked at once
// as there are registers for.
//
// Here and in linear_tile.h and linear_blocked.h every output is computed as acc = fma(x[k], w[k], acc) for k = 0, 1, ... from acc = 0:
// which of them a call goes to changes no bits.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_finish.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// Columns of one panel that are taken before those of the next. Short runs keep the machine's own prefetching going in all of them.
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
constexpr Stream kStreams[kStreamTokens] = {
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
void linear_stream_of(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t first_group, int64_t last_group, float* y) {
  const float* x = static_cast<const float*>(call.tokens);
  const int64_t most_tokens = (call.num_tokens + call.num_groups - 1) / call.num_groups;
  const int64_t at_once = stream_panels(static_cast<int>(most_tokens));
  for (int64_t panel = first_panel; panel < last_panel;) {
    const int64_t panels = panel + at_once <= last_panel ? at_once : 1;
    const Number* weight = static_cast<const Number*>(call.weight) + panel * call.cols * kPanelRows;
    for (int64_t group = first_group; group < last_group; ++group) {
      const int64_t first_token = call.num_tokens * group / call.num_groups;
      const int64_t tokens = call.num_tokens * (group + 1) / call.num_groups - first_token;
      const bool all = panels == stream_panels(static_cast<int>(tokens));
      (all ? kStreams<Number, false> : kStreams<Number, true>)[tokens - 1](y, weight, x + first_token * call.cols, call.cols);
      for (int64_t p = 0; p < panels; ++p) finish_tokens(call, first_token, tokens, panel + p, y + p * tokens * kPanelRows);
    }
    panel += panels;
  }
}

// The panels [first_panel, last_panel) for one block of token groups. y: scratch.
void linear_stream(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t first_group, int64_t last_group, float* y) {
  if (call.dtype == NumberType::float32) return linear_stream_of<float>(call, first_panel, last_panel, first_group, last_group, y);
  if (call.dtype == NumberType::float16) return linear_stream_of<Fp16>(call, first_panel, last_panel, first_group, last_group, y);
  linear_stream_of<Bf16>(call, first_panel, last_panel, first_group, last_group, y);
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

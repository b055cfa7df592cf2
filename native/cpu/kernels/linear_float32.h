// `linear` in float32 arithmetic: how the tokens are laid out, and which way a call goes.
#pragma once

#include "cpu/kernels/linear_blocked.h"
#include "cpu/kernels/linear_stream.h"
#if PARLEY_LEVEL < 2
#include "cpu/kernels/linear_tile.h"
#endif

namespace parley {
namespace PARLEY_ISA {
namespace {

// The sums of the panels that are walked at once, or what linear_blocked.h wants.
constexpr int64_t kFewScratch = kStreamPanels * kManyTokens * kPanelRows;
constexpr int64_t kFloat32Scratch = kFewScratch > kBlockedScratch ? kFewScratch : kBlockedScratch;

constexpr int kMostGroupTokens = kStreamTokens > kGroupTokens ? kStreamTokens : kGroupTokens;

int64_t packed_bytes_float32(int64_t num_tokens, int64_t cols) { return num_tokens * cols * static_cast<int64_t>(sizeof(float)); }

// Whether two groups of tokens go through each panel, one after the other (linear_stream.h), where it stays in the second-level cache for the second
// one. To widen the weights into the first-level cache for so few tokens takes longer than to widen them twice: 16 tokens through the shape of
// Pythia-160M on two cores of a Zen 4 made 402 and 446 tokens/s so, and 595 and 525 this way.
PARLEY_INLINE bool takes_two_groups(int64_t num_tokens, int64_t cols) {
  constexpr int64_t kCachedNumbers = 256 * 1024;
  return PARLEY_LEVEL >= 2 && num_tokens > kStreamTokens && num_tokens <= 2 * kStreamTokens && cols * kPanelRows <= kCachedNumbers;
}

LinearPlan plan_float32(int64_t num_tokens, int64_t cols) {
  const int64_t packed_bytes = num_tokens == 1 ? 0 : packed_bytes_float32(num_tokens, cols);
  if (num_tokens <= kStreamTokens) {
    const int64_t panels = stream_panels(static_cast<int>(num_tokens));
    return {1, 1, packed_bytes, kStreamPanels / panels * panels};
  }
  if (takes_two_groups(num_tokens, cols)) return {2, 1, packed_bytes, kStreamPanels};
  const int64_t num_groups = (num_tokens + kGroupTokens - 1) / kGroupTokens;
  if (num_tokens < kManyTokens) return {num_groups, 1, packed_bytes, kStreamPanels};
  const int64_t block_groups = blocked_groups(cols);
  return {num_groups, (num_groups + block_groups - 1) / block_groups, packed_bytes, kStreamPanels};
}

// target [cols][tokens] = source, `tokens` rows of cols numbers that are stride apart, turned.
template <int tokens>
void turn_tokens(float* target, const float* source, int64_t stride, int64_t cols) {
  for (int64_t k = 0; k < cols; ++k, target += tokens) {
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) target[t] = source[t * stride + k];
  }
}

using TurnTokens = void (*)(float* target, const float* source, int64_t stride, int64_t cols);

// kTurnTokens[n - 1] turns n tokens.
constexpr TurnTokens kTurnTokens[kMostGroupTokens] = {
    turn_tokens<1>,  turn_tokens<2>,  turn_tokens<3>,
#if PARLEY_LEVEL > 0
    turn_tokens<4>,  turn_tokens<5>,  turn_tokens<6>,
#endif
#if PARLEY_LEVEL > 1
    turn_tokens<7>,  turn_tokens<8>,  turn_tokens<9>,
    turn_tokens<10>, turn_tokens<11>, turn_tokens<12>,
#endif
};

// Tokens: per group [cols][tokens of the group], one group after the other.
void pack_tokens_float32(float* packed, const float* x, int64_t x_stride, int64_t num_tokens, int64_t num_groups, int64_t cols,
                         int64_t first_col, int64_t last_col) {
  constexpr int64_t run = 64;
  for (int64_t group = 0; group < num_groups; ++group) {
    const int64_t first_token = num_tokens * group / num_groups;
    const int64_t tokens = num_tokens * (group + 1) / num_groups - first_token;
    const float* source = x + first_token * x_stride;
    float* target = packed + first_token * cols;
    for (int64_t k = first_col; k < last_col; k += run) {
      // The next group's numbers are often in another core's cache, and the machine does not foresee such short runs.
      for (int64_t t = tokens; t < 2 * tokens && first_token + t < num_tokens; ++t) {
        for (int64_t i = 0; i < run; i += kLanes) __builtin_prefetch(source + t * x_stride + k + i);
      }
      kTurnTokens[tokens - 1](target + k * tokens, source + k, x_stride, k + run < last_col ? run : last_col - k);
    }
  }
}

// The panels [first_panel, last_panel) for one block of token groups.
void linear_float32(const LinearCall& call, int64_t first_panel, int64_t last_panel, int64_t first_group, int64_t last_group,
                    float* scratch) {
  if (call.num_tokens <= kStreamTokens || takes_two_groups(call.num_tokens, call.cols)) {
    return linear_stream(call, first_panel, last_panel, first_group, last_group, scratch);
  }
#if PARLEY_LEVEL < 2
  if (call.num_tokens < kManyTokens) return linear_tile(call, first_panel, last_panel, scratch);
#else
  static_assert(kStreamTokens + 1 == kManyTokens, "no number of tokens is left out");
#endif
  linear_blocked(call, first_panel, last_panel, first_group, last_group, scratch);
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

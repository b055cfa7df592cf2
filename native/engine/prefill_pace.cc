#include "engine/prefill_pace.h"

#include <algorithm>
#include <limits>

namespace parley {
namespace {

// A step that decodes and reads a prompt takes so much more of the time that the decodes alone take, on average: the gap between two
// tokens stays under 1.5 times the usual one, with something left for a noisy machine.
constexpr double kShare = 0.35;
// A step that lasts no longer than this may read as much as fits: at 20 tokens a second nobody sees a gap, while slices of a few tokens
// read a prompt several times slower than large ones do.
constexpr double kUnnoticedMs = 50;
// More of it for each prompt that waits behind the first.
constexpr double kShareBehind = 4 * kShare;
// So much of the decodes' time can be saved up while no prompt comes: its first step takes no more than 1.5 times the next ones.
constexpr double kMostSaved = 0.9;
// Before a token's time is known.
constexpr int64_t kFirstTokens = 16;

// One step that teaches something very different teaches little: something else held it up, or a kernel had rows to spare.
void learn(double& mean, double value) {
  mean = mean == 0 ? value : mean + 0.25 * (std::clamp(value, mean / 2, 2 * mean) - mean);
}

}  // namespace

int64_t PrefillPace::save_up(int64_t num_decodes, int64_t num_behind) {
  if (num_decodes == 0) return std::numeric_limits<int64_t>::max();
  const double usual = decode_ms(num_decodes);
  const double share = kShare + kShareBehind * static_cast<double>(num_behind);
  const double allowance_ms = std::max(share * usual, kUnnoticedMs - usual);
  // A token that takes longer than all that must still come one day.
  saved_ms_ = std::min(saved_ms_ + allowance_ms, std::max({kMostSaved * usual, allowance_ms, token_ms_}));
  if (usual == 0) return 0;  // known after this step
  return token_ms_ == 0 ? kFirstTokens : static_cast<int64_t>(std::max(0.0, saved_ms_) / token_ms_);
}

void PrefillPace::ran(int64_t num_decodes, int64_t num_prompt_tokens, double ms) {
  if (num_decodes == 0) {
    saved_ms_ = 0;
    if (token_ms_ == 0 && num_prompt_tokens > 0) token_ms_ = ms / static_cast<double>(num_prompt_tokens);
    return;
  }
  double& usual = decode_ms(num_decodes);
  if (num_prompt_tokens == 0 || ms < usual) learn(usual, ms);
  if (num_prompt_tokens == 0) return;
  const double extra = std::max(ms - usual, 0.0);
  saved_ms_ = std::max(saved_ms_ - extra, -kMostSaved * usual);
  learn(token_ms_, extra / static_cast<double>(num_prompt_tokens));
}

double& PrefillPace::decode_ms(int64_t num_decodes) {
  size_t i = 0;
  while (num_decodes >> (i + 1) > 0) ++i;
  return decode_ms_[i];
}

}  // namespace parley

#include "engine/prefill_pace.h"

#include <algorithm>
#include <limits>

namespace parley {
namespace {

// A step that decodes and reads a prompt takes so much more of the time that the decodes alone take, on average: the gap between two
// tokens stays under 1.5 times the usual one, with something left for a noisy machine.
constexpr double kShare = 0.35;
// More of it for each prompt that waits behind the first.
constexpr double kShareBehind = 4 * kShare;
// So much of the decodes' time can be saved up while no prompt comes: its first step takes no more than 1.5 times the next ones.
constexpr double kMostSaved = 0.9;
// Before anything is known.
constexpr int64_t kFirstTokens = 16;

void learn(double& mean, double value) { mean = mean == 0 ? value : mean + 0.25 * (value - mean); }

}  // namespace

int64_t PrefillPace::save_up(int64_t num_decodes, int64_t num_behind) {
  if (num_decodes == 0) return std::numeric_limits<int64_t>::max();
  const double usual = decode_ms(num_decodes);
  const double share = kShare + kShareBehind * static_cast<double>(num_behind);
  saved_ms_ = std::min(saved_ms_ + share * usual, std::max(kMostSaved, share) * usual);
  if (usual == 0 || token_ms_ == 0) return kFirstTokens;
  return static_cast<int64_t>(std::max(0.0, saved_ms_) / token_ms_);
}

void PrefillPace::ran(int64_t num_decodes, int64_t num_prompt_tokens, double ms) {
  if (num_decodes == 0) {
    saved_ms_ = 0;
    if (token_ms_ == 0 && num_prompt_tokens > 0) token_ms_ = ms / static_cast<double>(num_prompt_tokens);
    return;
  }
  double& usual = decode_ms(num_decodes);
  if (num_prompt_tokens == 0 || usual == 0) return learn(usual, ms);
  const double extra = std::max(ms - usual, 0.0);
  saved_ms_ = std::max(saved_ms_ - extra, -kMostSaved * usual);
  learn(token_ms_, std::max(extra / static_cast<double>(num_prompt_tokens), 1e-6 * usual));
}

// The time of so many decodes; at first that of the nearest number that is known.
double& PrefillPace::decode_ms(int64_t num_decodes) {
  size_t bucket = 0;
  while (num_decodes >> (bucket + 1) > 0) ++bucket;
  double& own = decode_ms_[bucket];
  for (size_t i = bucket; own == 0 && i-- > 0;) own = decode_ms_[i];
  for (size_t i = bucket; own == 0 && ++i < decode_ms_.size();) own = decode_ms_[i];
  return own;
}

}  // namespace parley

// What the tokens of a request so far mean for its next one: counts for the penalties, and ids that may not come now.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ops/types.h"

namespace parley {

inline bool has_penalties(const SamplingParams& params) {
  return params.presence_penalty != 0 || params.frequency_penalty != 0 || params.repetition_penalty != 1;
}

// Distinct tokens with how often they were generated. Adding a token takes constant time, however many there are.
class TokenCounts {
 public:
  // times: 1 for a generated token, 0 for one of the prompt.
  void add(int32_t token, int32_t times) {
    const auto [known, is_new] = index_.try_emplace(token, counts_.size());
    if (is_new) counts_.push_back({token, 0});
    counts_[known->second].count += times;
  }

  Span<const TokenCount> span() const { return {counts_.data(), static_cast<int64_t>(counts_.size())}; }

 private:
  std::vector<TokenCount> counts_;
  std::unordered_map<int32_t, size_t> index_;  // token -> its place in counts_
};

// The ids that may not come after `generated`: the last token of a bad word whose other tokens were just generated, and, before
// min_tokens, what would end the completion. The prompt's tokens are no part of a bad word (as in vLLM).
inline void find_forbidden(const SamplingParams& params, Span<const int32_t> generated, std::vector<int32_t>& forbidden) {
  forbidden.clear();
  const int32_t* word = params.bad_word_ids.data();
  for (const int32_t size : params.bad_word_sizes) {
    const int64_t num_before = size - 1;
    if (num_before <= generated.size && std::equal(word, word + num_before, generated.data + generated.size - num_before)) {
      forbidden.push_back(word[num_before]);
    }
    word += size;
  }
  if (generated.size >= params.min_tokens) return;
  forbidden.insert(forbidden.end(), params.stop_token_ids.begin(), params.stop_token_ids.end());
  if (!params.ignore_eos) forbidden.insert(forbidden.end(), params.eos_token_ids.begin(), params.eos_token_ids.end());
}

// Whether penalties, bad words or min_tokens have a say in which token comes next, after `num_generated` of which the last need not be known.
inline bool depends_on_tokens(const SamplingParams& params, int64_t num_generated) {
  return has_penalties(params) || !params.bad_word_sizes.empty() || num_generated <= params.min_tokens;
}

// Whether a request's own rules leave nothing to choose: all of the ids from 0 to num_ids - 1 that are allowed are forbidden.
inline bool forbids_all(const SamplingParams& params, const std::vector<int32_t>& forbidden, int64_t num_ids) {
  const auto is_left = [&, gone = std::unordered_set<int32_t>(forbidden.begin(), forbidden.end())](int32_t id) {
    return id < num_ids && gone.count(id) == 0;
  };
  const std::vector<int32_t>& allowed = params.allowed_token_ids;
  if (!allowed.empty()) return std::none_of(allowed.begin(), allowed.end(), is_left);
  for (int32_t id = 0; id < num_ids; ++id) {
    if (is_left(id)) return false;
  }
  return true;
}

}  // namespace parley

// One request inside the engine: integers only.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/arithmetic.h"
#include "engine/prefix_index.h"
#include "engine/token_rules.h"

namespace parley {

struct Request {
  // decoder_start: the token before the decoder's first in a model whose encoder reads the prompt; -1 in all others.
  Request(std::vector<int32_t> prompt, SamplingParams sampling, int32_t decoder_start = -1)
      : params(std::move(sampling)), tokens(std::move(prompt)) {
    if (decoder_start >= 0) {
      encoder_size = size();
      tokens.resize(static_cast<size_t>(decoder_begin()), 0);
      tokens.push_back(decoder_start);
    }
    prompt_size = size();
    forget_pages();
    if (params.repetition_penalty == 1) return;
    for (auto token = tokens.begin() + decoder_begin(); token != tokens.end(); ++token) counts.add(*token, 0);
  }

  static constexpr int64_t kNoDeadline = INT64_MAX;
  static constexpr int32_t kUnknownToken = -1;

  uint32_t id = 0;
  uint32_t group = 0;                 // of choices of one prompt, whose ids follow each other; 0: it is the only one
  int64_t deadline_ms = kNoDeadline;  // when it must have left the queue once
  SamplingParams params;
  // Prompt, then what was generated. With an encoder: what it reads, filled up to a whole page, whose pages keep the keys and values of
  // the decoder's cross-attention; then the decoder's tokens.
  std::vector<int32_t> tokens;
  int64_t prompt_size = 0;
  int64_t encoder_size = 0;        // tokens that the encoder reads
  int64_t num_encoded_layers = 0;  // encoder blocks that have read them
  int64_t num_computed = 0;  // leading tokens whose keys and values are in the pages
  std::vector<int32_t> pages;
  int64_t num_published = 0;  // leading pages that are in the prefix cache
  PrefixIndex::Name prefix;   // of these pages
  int64_t num_cached = 0;     // prompt tokens that the prefix cache spared
  TokenCounts counts;              // kept only when a penalty needs them
  std::vector<int32_t> forbidden;  // ids that may not be chosen next; see find_forbidden
  int64_t num_acknowledged = 0;    // generated tokens that the reader has taken
  int64_t num_seen = 0;            // leading prompt tokens that were computed or spared once; a repetition does not report or count again
  int64_t sample_row = 0;          // of the last step that chooses a token for it
  int64_t step = 0;                // the last one that has rows of it, or is to have them
  std::vector<double> pooled;      // sum of the hidden states that pooling asks for

  // Whether the row of a prompt token tells the log-probability of the next one.
  bool is_scored(int64_t position) const { return params.num_prompt_logprobs >= 0 && position + 1 < prompt_size; }

  bool is_pooled(int64_t position) const {
    return params.pooling == Pooling::mean ? position < prompt_size : params.pooling == Pooling::last && position + 1 == prompt_size;
  }

  // Leading tokens that need not be computed if their keys and values are at hand: the last one says what comes next, and what is
  // scored or pooled must have been seen.
  int64_t num_reusable() const {
    return reads_cache() || num_seen == prompt_size ? size() - 1 : num_seen;
  }

  // Whether the prefix cache may spare tokens of the prompt.
  bool reads_cache() const { return params.num_prompt_logprobs < 0 && params.pooling != Pooling::mean; }

  // After the pages were given back: all is to be computed again.
  void forget_pages() {
    num_computed = num_encoded_layers = num_published = 0;
    prefix = static_cast<PrefixIndex::Name>(params.cache_salt);
  }

  int64_t num_pooled() const { return params.pooling == Pooling::mean ? prompt_size : 1; }

  // Whether it is served before the other: the lower priority number first, then the earlier arrival.
  bool is_before(const Request& other) const {
    return params.priority != other.params.priority ? params.priority < other.params.priority : id < other.id;
  }

  int32_t& page(int64_t index) { return pages[static_cast<size_t>(index)]; }
  const int32_t* page_tokens(int64_t index) const { return tokens.data() + index * kPageSize; }

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_generated() const { return size() - prompt_size; }
  int64_t num_prompt_tokens() const { return encoder_size > 0 ? encoder_size : prompt_size; }
  int64_t decoder_begin() const { return ceil_div(encoder_size, kPageSize) * kPageSize; }
  bool is_encoded() const { return num_computed >= decoder_begin(); }

  // Tokens still to compute before the next one can be chosen. 1: decoding. More: prefill, or its repetition after a preemption.
  int64_t num_pending() const { return size() - num_computed; }
  bool decodes() const { return num_pending() == 1 && !pages.empty(); }

  // Whether as many tokens wait for the reader as may.
  bool is_ahead() const { return is_ahead(num_generated()); }
  bool is_ahead(int64_t num_generated) const { return params.max_unread > 0 && num_generated - num_acknowledged >= params.max_unread; }

  // The place of a token that a step is choosing: what comes behind it can be prepared.
  void expect() { tokens.push_back(kUnknownToken); }
  bool expects() const { return tokens.back() == kUnknownToken; }
  int64_t num_known() const { return size() - (expects() ? 1 : 0); }

  // The token that was expected, or one that was not.
  void append(int32_t token) {
    if (expects()) tokens.pop_back();
    tokens.push_back(token);
    if (has_penalties(params)) counts.add(token, 1);
  }

  Span<const int32_t> generated() const { return {tokens.data() + prompt_size, num_generated()}; }
};

}  // namespace parley

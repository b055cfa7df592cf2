// One request inside the engine: integers only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops/types.h"

namespace parley {

struct Request {
  uint32_t id = 0;
  SamplingParams params;
  std::vector<int32_t> tokens;  // prompt, then what was generated
  int64_t prompt_size = 0;
  int64_t num_computed = 0;  // leading tokens whose keys and values are in the pages
  std::vector<int32_t> pages;
  std::vector<TokenCount> generated_counts;  // distinct generated tokens; kept only when a penalty needs them

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_generated() const { return size() - prompt_size; }

  // Tokens still to compute before the next one can be chosen. 1: decoding. More: prefill, or its repetition after a preemption.
  int64_t num_pending() const { return size() - num_computed; }

  void append(int32_t token) {
    tokens.push_back(token);
    if (params.presence_penalty == 0 && params.frequency_penalty == 0) return;
    const auto known = std::find_if(generated_counts.begin(), generated_counts.end(), [&](const TokenCount& c) { return c.token == token; });
    if (known != generated_counts.end()) {
      ++known->count;
    } else {
      generated_counts.push_back({token, 1});
    }
  }
};

}  // namespace parley

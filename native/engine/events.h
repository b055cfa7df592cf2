// What a step brings to the caller: tokens, ends, and what is told of prompts.
#pragma once

#include <cstdint>
#include <vector>

#include "model/step.h"

namespace parley {

// One token for the caller, or a request's end without one (token -1). Ranks and log-probabilities: see `sample` in ops.def.
struct TokenEvent {
  uint32_t request;
  FinishReason finish;
  int32_t token;
  float logprob;
  int32_t rank;
  int64_t num_top;
  const int32_t* top_tokens;  // [num_top], the StepResult's memory
  const float* top_logprobs;
};

inline TokenEvent end_without_token(uint32_t request, FinishReason reason) { return {request, reason, -1, 0, 0, 0, nullptr, nullptr}; }

// Tokens of a request's prompt that the prefix cache spared.
struct CachedEvent {
  uint32_t request;
  int64_t num_tokens;
};

// Log-probabilities of `count` tokens of a prompt, the first of them at `first_position`. Rows of the StepResult's score_*.
struct PromptEvent {
  uint32_t request;
  int64_t first_position;
  int64_t count;
  int64_t num_top;
  int64_t first_row;
};

// A request's pooled hidden state. [hidden]
struct PooledEvent {
  uint32_t request;
  std::vector<float> hidden;
};

struct StepEvents {
  std::vector<CachedEvent> cached;
  std::vector<PromptEvent> prompts;
  std::vector<PooledEvent> pooled;
  std::vector<TokenEvent> tokens;
  const StepResult* result = nullptr;  // that prompts and tokens point into

  void clear() {
    cached.clear();
    prompts.clear();
    pooled.clear();
    tokens.clear();
  }
};

// A step's events for all requests in one packed buffer of 32-bit words. One event is [request, kind, num_words, word * num_words]; the
// words of each EventKind, log-probabilities as float32 bits:
//   token   finish, token (-1: it ends without one), logprob, rank, (token, logprob) * num_top
//   prompt  position of the first of several tokens, num_top, then for each token logprob, rank, (token, logprob) * num_top
//   pooled  float32 * hidden_size
//   cached  tokens of the prompt that the prefix cache spared
using PackedEvents = std::vector<int32_t>;

// The tokens come last, because they end requests.
PackedEvents pack(const StepEvents& events);

}  // namespace parley

#include "engine/events.h"

#include <cstring>

namespace parley {
namespace {

int32_t float_word(float value) {
  int32_t word;
  std::memcpy(&word, &value, sizeof word);
  return word;
}

// Begins an event; the returned place is end_event()'s.
size_t begin_event(uint32_t request, EventKind kind, PackedEvents& words) {
  words.insert(words.end(), {static_cast<int32_t>(request), static_cast<int32_t>(kind), 0});
  return words.size();
}

void end_event(size_t begin, PackedEvents& words) { words[begin - 1] = static_cast<int32_t>(words.size() - begin); }

void pack_top(const int32_t* tokens, const float* logprobs, int64_t num_top, PackedEvents& words) {
  for (int64_t i = 0; i < num_top; ++i) words.insert(words.end(), {tokens[i], float_word(logprobs[i])});
}

void pack(const TokenEvent& event, PackedEvents& words) {
  const size_t begin = begin_event(event.request, EventKind::token, words);
  words.insert(words.end(), {static_cast<int32_t>(event.finish), event.token, float_word(event.logprob), event.rank});
  pack_top(event.top_tokens, event.top_logprobs, event.num_top, words);
  end_event(begin, words);
}

void pack(const PromptEvent& event, const StepResult& result, PackedEvents& words) {
  const size_t begin = begin_event(event.request, EventKind::prompt, words);
  words.insert(words.end(), {static_cast<int32_t>(event.first_position), static_cast<int32_t>(event.num_top)});
  for (int64_t i = 0; i < event.count; ++i) {
    const size_t row = static_cast<size_t>(event.first_row + i);
    words.insert(words.end(), {float_word(result.score_logprobs[row]), result.score_ranks[row]});
    const size_t top = row * static_cast<size_t>(kMaxLogprobs);
    pack_top(&result.score_top_tokens[top], &result.score_top_logprobs[top], event.num_top, words);
  }
  end_event(begin, words);
}

void pack(const PooledEvent& event, PackedEvents& words) {
  const size_t begin = begin_event(event.request, EventKind::pooled, words);
  for (const float number : event.hidden) words.push_back(float_word(number));
  end_event(begin, words);
}

void pack(const CachedEvent& event, PackedEvents& words) {
  const size_t begin = begin_event(event.request, EventKind::cached, words);
  words.push_back(static_cast<int32_t>(event.num_tokens));
  end_event(begin, words);
}

}  // namespace

PackedEvents pack(const StepEvents& events) {
  PackedEvents words;
  for (const CachedEvent& event : events.cached) pack(event, words);
  for (const PromptEvent& event : events.prompts) pack(event, *events.result, words);
  for (const PooledEvent& event : events.pooled) pack(event, words);
  for (const TokenEvent& event : events.tokens) pack(event, words);
  return words;
}

}  // namespace parley

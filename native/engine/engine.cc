#include "engine/engine.h"

#include <cstring>
#include <numeric>

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

Engine::Engine(std::unique_ptr<Worker> worker, const EngineOptions& options, OnEvents on_events)
    : worker_(std::move(worker)),
      info_(worker_->info()),
      check_integrity_(options.check_integrity),
      on_events_(std::move(on_events)),
      last_progress_(Clock::now()),
      scheduler_(options, worker_->num_pages(), static_cast<int64_t>(info_.max_model_len), worker_->spec().num_encoder_layers) {
  publish_stats();
  thread_ = std::thread([this] { loop(); });
}

Engine::~Engine() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

uint32_t Engine::submit(std::vector<int32_t> prompt, SamplingParams params) {
  check_request(prompt, params);
  const ModelSpec& spec = worker_->spec();
  const int32_t decoder_start = spec.num_encoder_layers > 0 ? static_cast<int32_t>(spec.decoder_start_token) : -1;
  auto request = std::make_unique<Request>(std::move(prompt), std::move(params), decoder_start);
  uint32_t id;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    id = request->id = next_id_++;
    if (submitted_.empty() && stats_.num_requests_running + stats_.num_requests_waiting == 0) last_progress_ = Clock::now();
    submitted_.push_back(std::move(request));
  }
  wake_.notify_one();
  return id;
}

void Engine::cancel(uint32_t id) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_.push_back(id);
  }
  wake_.notify_one();
}

EngineStats Engine::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  EngineStats stats = stats_;
  stats.num_requests_waiting += static_cast<double>(submitted_.size());
  const bool busy = stats.num_requests_running + stats.num_requests_waiting > 0;
  stats.step_age_ms = busy ? std::chrono::duration<double, std::milli>(Clock::now() - last_progress_).count() : 0;
  return stats;
}

// What the ranges of contract.def cannot say: how a request fits this model.
void Engine::check_request(const std::vector<int32_t>& prompt, const SamplingParams& params) const {
  const int64_t vocab = worker_->spec().vocab_size;
  const int64_t max_model_len = static_cast<int64_t>(info_.max_model_len);
  check(!prompt.empty(), "prompt: expected at least one token, got none");
  // A completion's last token needs no place: nothing is predicted from it. A decoder behind an encoder begins with a place of its own.
  const int64_t longest = max_model_len - (worker_->spec().num_encoder_layers > 0 && params.max_tokens > 0 ? 1 : 0);
  check(static_cast<int64_t>(prompt.size()) <= longest, "prompt: expected at most ", longest, " tokens, got ", prompt.size());
  const bool reports = params.pooling != Pooling::none || params.num_prompt_logprobs >= 0;
  check(!reports || worker_->spec().num_encoder_layers == 0,
        "num_prompt_logprobs, pooling: expected none, because this model's encoder reads the prompt and tells nothing of its tokens");
  check(params.pooling == Pooling::none || params.max_tokens == 0, "pooling: expected max_tokens 0, got ", params.max_tokens);
  auto check_ids = [vocab](const char* name, const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) check(id >= 0 && id < vocab, name, ": expected token ids from 0 to ", vocab - 1, ", got ", id);
  };
  check_ids("prompt", prompt);
  check_ids("bias_ids", params.bias_ids);
  check_ids("allowed_token_ids", params.allowed_token_ids);
  check_ids("bad_word_ids", params.bad_word_ids);
  check_ids("logprob_token_ids", params.logprob_token_ids);
  check(static_cast<int64_t>(params.logprob_token_ids.size()) <= kMaxLogprobs, "logprob_token_ids: expected at most ", kMaxLogprobs,
        " ids, got ", params.logprob_token_ids.size());
  const int64_t bad_word_tokens = std::accumulate(params.bad_word_sizes.begin(), params.bad_word_sizes.end(), int64_t{0});
  check(static_cast<int64_t>(params.bad_word_ids.size()) == bad_word_tokens, "bad_word_ids: expected ", bad_word_tokens, " ids, got ",
        params.bad_word_ids.size());
  check(params.bias_ids.size() == params.bias_values.size(), "bias_values: expected ", params.bias_ids.size(), " numbers, got ",
        params.bias_values.size());
}

void Engine::loop() {
  std::vector<std::unique_ptr<Request>> submitted;
  std::vector<uint32_t> cancelled;
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || !submitted_.empty() || !cancelled_.empty() || !scheduler_.idle(); });
      if (stopping_) break;
      submitted.swap(submitted_);
      cancelled.swap(cancelled_);
      // Counted as waiting from here on by the scheduler; between the two a scrape must not lose them.
      stats_.num_requests_waiting += static_cast<double>(submitted.size());
    }
    for (auto& request : submitted) scheduler_.add(std::move(request));
    for (const uint32_t id : cancelled) {
      if (scheduler_.cancel(id)) events_.tokens.push_back(end_without_token(id, FinishReason::cancelled));
    }
    submitted.clear();
    cancelled.clear();
    try {
      run_step();
    } catch (const std::exception& error) {
      end_all(FinishReason::error, error.what());
    }
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    submitted.swap(submitted_);
  }
  for (auto& request : submitted) scheduler_.add(std::move(request));
  end_all(FinishReason::cancelled, "");
}

void Engine::run_step() {
  if (check_integrity_) scheduler_.check_integrity();
  scheduler_.schedule(step_);
  publish_stats();  // a scrape during a long prefill sees the requests running
  if (!step_.empty()) {
    worker_->run(step_, result_);
    ++num_steps_;
    num_generation_tokens_ += static_cast<int64_t>(step_.samples.size());
    scheduler_.collect(result_, events_);
  }
  PackedEvents words;
  for (const CachedEvent& event : events_.cached) pack(event, words);
  for (const PromptEvent& event : events_.prompts) pack(event, result_, words);
  for (const PooledEvent& event : events_.pooled) pack(event, words);
  for (const TokenEvent& event : events_.tokens) pack(event, words);  // last: they end requests
  events_.clear();
  publish_stats();  // before the events: who sees a request's end also sees its pages free
  if (!words.empty()) on_events_(std::move(words), "");
}

// Every request ends exactly once: those that cannot go on end here.
void Engine::end_all(FinishReason reason, std::string failure) {
  events_.clear();
  PackedEvents words;
  for (const uint32_t id : scheduler_.clear()) pack(end_without_token(id, reason), words);
  publish_stats();
  if (!words.empty() || !failure.empty()) on_events_(std::move(words), std::move(failure));
}

void Engine::publish_stats() {
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_.num_requests_running = static_cast<double>(scheduler_.num_running());
  stats_.num_requests_waiting = static_cast<double>(scheduler_.num_waiting());
  stats_.num_pages_used = static_cast<double>(scheduler_.num_pages_used());
  stats_.num_pages = info_.num_pages;
  stats_.num_steps = static_cast<double>(num_steps_);
  stats_.num_preemptions = static_cast<double>(scheduler_.num_preemptions());
  stats_.num_prompt_tokens = static_cast<double>(scheduler_.num_prompt_tokens());
  stats_.num_prefix_queries = static_cast<double>(scheduler_.num_prefix_queries());
  stats_.num_prefix_hits = static_cast<double>(scheduler_.num_prefix_hits());
  stats_.num_generation_tokens = static_cast<double>(num_generation_tokens_);
  last_progress_ = Clock::now();
}

}  // namespace parley

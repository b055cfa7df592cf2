#include "engine/engine.h"

#include <time.h>

#include <numeric>

namespace parley {
namespace {

// Processor time of this thread.
double thread_ms() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

}  // namespace

Engine::Engine(std::unique_ptr<RankGroup> ranks, const EngineOptions& options, OnEvents on_events)
    : ranks_(std::move(ranks)),
      info_(ranks_->info()),
      options_(options),
      on_events_(std::move(on_events)),
      last_progress_(Clock::now()),
      scheduler_(ranks_->spec(), options, ranks_->num_pages(), static_cast<int64_t>(info_.max_model_len)) {
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

uint32_t Engine::submit(const std::vector<int32_t>& prompt, const SamplingParams& params, int64_t num_choices) {
  check_request(prompt, params, num_choices);
  const ModelSpec& spec = ranks_->spec();
  const int32_t decoder_start = spec.num_encoder_layers > 0 ? static_cast<int32_t>(spec.decoder_start_token) : -1;
  std::vector<std::unique_ptr<Request>> requests;
  for (int64_t i = 0; i < num_choices; ++i) {
    requests.push_back(std::make_unique<Request>(prompt, params, decoder_start));
    requests.back()->params.choice += i;
    if (options_.max_queue_ms > 0) requests.back()->deadline_ms = now_ms() + options_.max_queue_ms;
  }
  uint32_t first_id;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (submitted_.empty() && stats_.num_requests_running + stats_.num_requests_waiting == 0) last_progress_ = Clock::now();
    first_id = next_id_;
    for (auto& request : requests) {
      request->id = next_id_++;
      if (num_choices > 1) request->group = first_id;
      submitted_.push_back(std::move(request));
    }
  }
  wake_.notify_one();
  return first_id;
}

double Engine::ms_since(Clock::time_point begin) { return std::chrono::duration<double, std::milli>(Clock::now() - begin).count(); }

int64_t Engine::now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count();
}

void Engine::cancel(uint32_t id) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_.push_back(id);
  }
  wake_.notify_one();
}

void Engine::acknowledge(uint32_t id, int64_t num_tokens) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    acknowledged_.push_back({id, num_tokens});
  }
  wake_.notify_one();
}

EngineStats Engine::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  EngineStats stats = stats_;
  stats.num_requests_waiting += static_cast<double>(submitted_.size());
  stats.num_queue_places -= static_cast<double>(submitted_.size());
  const bool busy = stats.num_requests_running + stats.num_requests_waiting > 0;
  stats.step_age_ms = busy ? ms_since(last_progress_) : 0;
  return stats;
}

// What the ranges of contract.def cannot say: how a request fits this model.
void Engine::check_request(const std::vector<int32_t>& prompt, const SamplingParams& params, int64_t num_choices) const {
  const int64_t vocab = ranks_->spec().vocab_size;
  const int64_t max_model_len = static_cast<int64_t>(info_.max_model_len);
  check(!prompt.empty(), "prompt: expected at least one token, got none");
  // A completion's last token needs no place: nothing is predicted from it. A decoder behind an encoder begins with a place of its own.
  const int64_t longest = max_model_len - (ranks_->spec().num_encoder_layers > 0 && params.max_tokens > 0 ? 1 : 0);
  check(static_cast<int64_t>(prompt.size()) <= longest, "prompt: expected at most ", longest, " tokens, got ", prompt.size());
  const bool reports = params.pooling != Pooling::none || params.num_prompt_logprobs >= 0;
  check(!reports || ranks_->spec().num_encoder_layers == 0,
        "num_prompt_logprobs, pooling: expected none, because this model's encoder reads the prompt and tells nothing of its tokens");
  check(params.pooling == Pooling::none || params.max_tokens == 0, "pooling: expected max_tokens 0, got ", params.max_tokens);
  const int64_t most_choices = kMaxChoices - params.choice;
  check(num_choices >= 1 && num_choices <= most_choices, "choices: expected 1 to ", most_choices, ", got ", num_choices);
  check(params.pooling == Pooling::none || num_choices == 1, "pooling: expected one choice, got ", num_choices);
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
  std::vector<Acknowledgement> acknowledged;
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] {
        return stopping_ || !submitted_.empty() || !cancelled_.empty() || !acknowledged_.empty() || !scheduler_.idle();
      });
      if (stopping_) break;
      submitted.swap(submitted_);
      cancelled.swap(cancelled_);
      acknowledged.swap(acknowledged_);
      // Counted as waiting from here on by the scheduler; between the two a scrape must not lose them.
      stats_.num_requests_waiting += static_cast<double>(submitted.size());
      stats_.num_queue_places -= static_cast<double>(submitted.size());
    }
    for (auto& request : submitted) scheduler_.add(std::move(request));
    for (const uint32_t id : cancelled) {
      if (scheduler_.cancel(id)) events_.tokens.push_back(end_without_token(id, FinishReason::cancelled));
    }
    for (const auto& [id, num_tokens] : acknowledged) scheduler_.acknowledge(id, num_tokens);
    submitted.clear();
    cancelled.clear();
    acknowledged.clear();
    scheduler_.expire(now_ms(), events_);
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
  const double begin = thread_ms();
  const double computing_before = computing_ms_;
  const std::string stopped = ranks_->stopped();
  check(stopped.empty(), stopped);  // before the scheduler: a rank that has stopped may still hold the step
  if (options_.check_integrity) scheduler_.check_integrity();
  const Step& step = scheduler_.schedule();
  if (!step.empty()) compute(step);
  if (step.empty() || scheduler_.idle()) tell();
  bookkeeping_ms_ += thread_ms() - begin - (computing_ms_ - computing_before);
}

void Engine::compute(const Step& step) {
  StepResult& result = results_[static_cast<size_t>(++num_steps_ % 2)];
  const Clock::time_point begin = next_is_begun_ ? last_end_ : Clock::now();
  const double before = thread_ms();
  double telling_ms = 0;
  ranks_->run(step, result, [&] {
    const double computed = thread_ms();
    tell();
    const StepRun next = next_step();
    telling_ms = thread_ms() - computed;
    return next;
  });
  computing_ms_ += thread_ms() - before - telling_ms;
  last_end_ = Clock::now();
  scheduler_.collect(result, std::chrono::duration<double, std::milli>(last_end_ - begin).count(), events_);
  std::string warning = ranks_->take_warning();
  if (!warning.empty()) on_events_({}, std::move(warning));
}

// What the device can begin before it is done with the step that runs.
StepRun Engine::next_step() {
  scheduler_.look_ahead();
  const Step* step = ranks_->chains() ? scheduler_.chain() : nullptr;
  next_is_begun_ = step != nullptr;
  return {step, &results_[static_cast<size_t>((num_steps_ + 1) % 2)]};
}

// What the last step brought, and who was cancelled since.
void Engine::tell() {
  PackedEvents words = pack(events_);
  events_.clear();
  publish_stats();  // before the events: who sees a request's end also sees its pages free
  if (!words.empty()) on_events_(std::move(words), "");
}

// Every request ends exactly once: those that cannot go on end here.
void Engine::end_all(FinishReason reason, std::string failure) {
  next_is_begun_ = false;
  for (const uint32_t id : scheduler_.clear()) events_.tokens.push_back(end_without_token(id, reason));
  PackedEvents words = pack(events_);
  events_.clear();
  publish_stats();
  if (!words.empty() || !failure.empty()) on_events_(std::move(words), std::move(failure));
}

void Engine::publish_stats() {
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_.num_requests_running = static_cast<double>(scheduler_.num_running());
  stats_.num_requests_waiting = static_cast<double>(scheduler_.num_waiting());
  stats_.num_requests_paused = static_cast<double>(scheduler_.num_paused());
  // What is paused will want a seat again, and holds unread tokens: so many places are taken.
  const int64_t num_taken = scheduler_.num_waiting() + scheduler_.num_paused();
  stats_.num_queue_places = static_cast<double>(options_.max_queue + scheduler_.num_seats() - num_taken);
  stats_.num_pages_used = static_cast<double>(scheduler_.num_pages_used());
  stats_.num_pages = info_.num_pages;
  stats_.bookkeeping_ms = bookkeeping_ms_;
  stats_.num_steps = static_cast<double>(num_steps_);
  stats_.num_preemptions = static_cast<double>(scheduler_.num_preemptions());
  stats_.num_prompt_tokens = static_cast<double>(scheduler_.num_prompt_tokens());
  stats_.num_prefix_queries = static_cast<double>(scheduler_.num_prefix_queries());
  stats_.num_prefix_hits = static_cast<double>(scheduler_.num_prefix_hits());
  stats_.num_generation_tokens = static_cast<double>(scheduler_.num_generation_tokens());
  stats_.num_stopped_ranks = ranks_->stopped().empty() ? 0 : 1;
  stats_.scratch_bytes = static_cast<double>(ranks_->held_scratch_bytes());
  last_progress_ = Clock::now();
}

}  // namespace parley

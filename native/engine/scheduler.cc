#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/arithmetic.h"

namespace parley {

Scheduler::Scheduler(const EngineOptions& options, int64_t num_pages, int64_t max_model_len, int64_t num_encoder_layers)
    : max_model_len_(max_model_len),
      max_num_seqs_(options.max_num_seqs),
      max_num_batched_tokens_(options.max_num_batched_tokens),
      prefix_caching_(options.prefix_caching),
      num_encoder_layers_(num_encoder_layers),
      pages_(num_pages) {}

void Scheduler::add(std::unique_ptr<Request> request) { waiting_.push_back(std::move(request)); }

bool Scheduler::cancel(uint32_t id) {
  const auto is_it = [id](const std::unique_ptr<Request>& request) { return request->id == id; };
  const auto running = std::find_if(running_.begin(), running_.end(), is_it);
  if (running != running_.end()) {
    release(**running);
    running_.erase(running);
    return true;
  }
  const auto waiting = std::find_if(waiting_.begin(), waiting_.end(), is_it);
  if (waiting == waiting_.end()) return false;
  waiting_.erase(waiting);
  return true;
}

std::vector<uint32_t> Scheduler::clear() {
  std::vector<uint32_t> ids;
  for (const auto& request : running_) {
    ids.push_back(request->id);
    release(*request);
  }
  for (const auto& request : waiting_) ids.push_back(request->id);
  running_.clear();
  waiting_.clear();
  pages_.release(replaced_);
  pages_.forget();  // the step that was to fill the newest ones may have failed
  return ids;
}

void Scheduler::schedule(Step& step) {
  step.clear();
  sampled_.clear();
  scheduled_.clear();
  finished_.clear();
  scored_.clear();
  cached_.clear();
  int64_t budget = max_num_batched_tokens_;

  // First the requests that decode, then those that still read their prompt, each from the oldest to the newest. A request that has
  // rows in this step already has nothing pending. Making room takes pages from the newest only, so the walk stays valid.
  for (const bool decoding : {true, false}) {
    for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
      Request& request = *running_[i];
      if (decoding ? request.num_pending() != 1 : request.num_pending() < 2) continue;
      if (!make_room(request, std::min(request.num_pending(), budget))) break;
      budget -= read(request, budget, step);
    }
  }
  admit(budget, step);

  write_page_tables(step);
}

void Scheduler::write_page_tables(Step& step) const {
  step.num_sequences = static_cast<int64_t>(scheduled_.size());
  for (const Request* request : scheduled_) {
    const int64_t num_encoder_pages = request->decoder_begin() / kPageSize;
    step.max_encoder_pages = std::max(step.max_encoder_pages, num_encoder_pages);
    step.max_pages = std::max(step.max_pages, static_cast<int64_t>(request->pages.size()) - num_encoder_pages);
  }
  step.page_table.resize(static_cast<size_t>(step.num_sequences * step.max_pages), 0);
  step.encoder_page_table.resize(static_cast<size_t>(step.num_sequences * step.max_encoder_pages), 0);
  for (int64_t s = 0; s < step.num_sequences; ++s) {
    const Request& request = *scheduled_[static_cast<size_t>(s)];
    const auto decoder_pages = request.pages.begin() + request.decoder_begin() / kPageSize;
    std::copy(request.pages.begin(), decoder_pages, step.encoder_page_table.begin() + s * step.max_encoder_pages);
    std::copy(decoder_pages, request.pages.end(), step.page_table.begin() + s * step.max_pages);
  }
}

// New requests, in order of arrival, as long as budget, seats and pages for the whole of what they have to read last.
void Scheduler::admit(int64_t budget, Step& step) {
  while (!waiting_.empty() && budget > 0 && num_running() < max_num_seqs_) {
    Request& request = *waiting_.front();
    reuse_pages(request);
    if (!ensure_pages(request, request.size())) return release(request);
    const auto newer = std::find_if(running_.begin(), running_.end(), [&](const auto& other) { return other->id > request.id; });
    running_.insert(newer, std::move(waiting_.front()));
    waiting_.pop_front();
    budget -= read(request, budget, step);
  }
}

// As much of what a request has pending as the budget allows. Returns what that costs.
int64_t Scheduler::read(Request& request, int64_t budget, Step& step) {
  if (!request.is_encoded()) return encode(request, budget, step);
  reuse_pages(request);
  const int64_t num_tokens = std::min(request.num_pending(), budget);
  append_rows(request, num_tokens, step);
  return num_tokens;
}

// A prompt goes through the encoder whole. One that is longer than the budget goes through some blocks in each step, at least one, and
// until it is through no other one begins, because its hidden states wait in the encoder.
int64_t Scheduler::encode(Request& request, int64_t budget, Step& step) {
  if (encoding_ != nullptr && encoding_ != &request) return 0;
  const int64_t first = request.num_encoded_layers;
  const int64_t last = std::min(num_encoder_layers_, first + std::max<int64_t>(1, budget * num_encoder_layers_ / request.encoder_size));
  step.encoder_jobs.push_back({{request.tokens.data(), request.encoder_size},
                               {request.pages.data(), request.decoder_begin() / kPageSize},
                               first,
                               last});
  request.num_encoded_layers = last;
  const bool done = last == num_encoder_layers_;
  encoding_ = done ? nullptr : &request;
  if (done) request.num_computed = request.num_seen = request.decoder_begin();  // its first row comes with the next step
  return std::min(budget, ceil_div(request.encoder_size * (last - first), num_encoder_layers_));
}

// Takes over pages of the prefix cache in place of what the request is about to compute. Tried before each part of a prompt, so that of
// requests that come together with the same beginning one computes it, and the others follow even within the step: a layer writes the
// keys and values of all rows before any row reads them.
void Scheduler::reuse_pages(Request& request) {
  if (!caches(request)) return;
  while (request.num_computed == request.num_published * kPageSize && request.num_computed + kPageSize <= request.num_reusable()) {
    int32_t page = pages_.find(request.prefix, &request.tokens[static_cast<size_t>(request.num_computed)]);
    if (page < 0) return;
    pages_.hold(page);
    request.prefix = pages_.name(page);
    if (request.num_published == static_cast<int64_t>(request.pages.size())) {
      request.pages.push_back(page);
    } else {
      std::swap(request.pages[static_cast<size_t>(request.num_published)], page);
      pages_.release(page);
    }
    ++request.num_published;
    request.num_computed += kPageSize;
  }
}

// Puts the pages that the request's rows of this step fill into the prefix cache. Where another request has computed the same, its page
// serves both.
void Scheduler::publish_pages(Request& request) {
  if (!caches(request)) return;
  for (; (request.num_published + 1) * kPageSize <= request.num_computed; ++request.num_published) {
    int32_t& page = request.pages[static_cast<size_t>(request.num_published)];
    const int32_t* tokens = &request.tokens[static_cast<size_t>(request.num_published * kPageSize)];
    const int32_t known = pages_.find(request.prefix, tokens);
    if (known < 0) {
      pages_.publish(page, request.prefix, tokens);
    } else {
      pages_.hold(known);
      replaced_.push_back(page);
      page = known;
    }
    request.prefix = pages_.name(page);
  }
}

bool Scheduler::ensure_pages(Request& request, int64_t num_tokens) {
  const int64_t missing = ceil_div(num_tokens, kPageSize) - static_cast<int64_t>(request.pages.size());
  return missing <= 0 || pages_.allocate(missing, request.pages);
}

// Pages for `num_tokens` more of a running request, taken from the newest requests if need be. The oldest always gets its pages, so
// it always ends: nobody starves. False if the request was the newest itself and had to go back to the queue.
bool Scheduler::make_room(Request& request, int64_t num_tokens) {
  while (!ensure_pages(request, request.num_computed + num_tokens)) {
    const bool itself = running_.back().get() == &request;
    preempt_newest();
    if (itself) return false;
  }
  return true;
}

// Frees the newest request's pages and queues it in its old place; its keys and values are computed again later, to the same bits.
void Scheduler::preempt_newest() {
  std::unique_ptr<Request> request = std::move(running_.back());
  running_.pop_back();
  release(*request);
  waiting_.push_front(std::move(request));  // whoever waits came later, for nobody overtakes
  ++num_preemptions_;
}

void Scheduler::release(Request& request) {
  pages_.release(request.pages);
  request.forget_pages();
  if (encoding_ == &request) encoding_ = nullptr;
}

void Scheduler::append_rows(Request& request, int64_t num_tokens, Step& step) {
  for (int64_t i = 0; i < num_tokens; ++i) {
    const int64_t position = request.num_computed + i;
    const int64_t page = request.pages[static_cast<size_t>(position / kPageSize)];
    step.tokens.push_back(request.tokens[static_cast<size_t>(position)]);
    step.positions.push_back(static_cast<int32_t>(position - request.decoder_begin()));
    if (request.encoder_size > 0) step.encoder_positions.push_back(static_cast<int32_t>(request.encoder_size - 1));
    step.slots.push_back(static_cast<int32_t>(page * kPageSize + position % kPageSize));
    step.sequences.push_back(static_cast<int32_t>(scheduled_.size()));
  }
  scheduled_.push_back(&request);
  append_reports(request, num_tokens, step);
  request.num_computed += num_tokens;
  publish_pages(request);
  if (request.num_pending() > 0) return;  // more of the prompt to come
  if (request.num_generated() == 0) count_prompt(request);
  if (request.params.max_tokens == 0) {
    finished_.push_back(&request);
    return;
  }
  sampled_.push_back(&request);
  step.sample_rows.push_back(static_cast<int32_t>(step.num_rows() - 1));
  find_forbidden(request.params, request.generated(), request.forbidden);
  step.samples.push_back({&request.params,
                          request.counts.span(),
                          {request.forbidden.data(), static_cast<int64_t>(request.forbidden.size())},
                          request.num_generated()});
}

void Scheduler::count_prompt(const Request& request) {
  num_prompt_tokens_ += request.num_prompt_tokens();
  if (request.num_cached > 0) cached_.push_back({request.id, request.num_cached});
  if (!caches(request) || !request.reads_cache()) return;
  num_prefix_queries_ += request.num_prompt_tokens();
  num_prefix_hits_ += request.num_cached;
}

// What the rows that append_rows() just appended tell of the prompt.
void Scheduler::append_reports(Request& request, int64_t num_tokens, Step& step) {
  const int64_t first_row = step.num_rows() - num_tokens - request.num_computed;  // of position 0, if it were here
  const int64_t begin = std::max(request.num_computed, request.num_seen);
  request.num_cached += std::max<int64_t>(0, std::min(request.num_computed, request.prompt_size) - request.num_seen);
  const int64_t end = std::min(request.num_computed + num_tokens, request.prompt_size);
  PromptEvent scored{request.id, begin + 1, 0, request.params.num_prompt_logprobs, static_cast<int64_t>(step.scores.size())};
  for (int64_t position = begin; position < end; ++position) {
    const int32_t row = static_cast<int32_t>(first_row + position);
    if (request.is_scored(position)) {
      step.score_rows.push_back(row);
      step.scores.push_back({request.tokens[static_cast<size_t>(position) + 1], static_cast<int32_t>(scored.num_top)});
      ++scored.count;
    }
    if (request.is_pooled(position)) {
      step.pool_rows.push_back(row);
      step.pool_sums.push_back(&request.pooled);
    }
  }
  request.num_seen = std::max(request.num_seen, end);
  if (scored.count > 0) scored_.push_back(scored);
}

void Scheduler::collect(const StepResult& result, StepEvents& events) {
  events.cached.insert(events.cached.end(), cached_.begin(), cached_.end());
  events.prompts.insert(events.prompts.end(), scored_.begin(), scored_.end());
  for (size_t r = 0; r < sampled_.size(); ++r) {
    Request& request = *sampled_[r];
    const int32_t token = result.tokens[r];
    FinishReason finish = FinishReason::error;  // no logit was a number: only this request fails
    if (token >= 0) {
      request.append(token);
      finish = finish_reason(request);
    }
    const size_t top = r * static_cast<size_t>(kMaxLogprobs);
    events.tokens.push_back({request.id, finish, token, result.logprobs[r], result.ranks[r], num_top(request.params),
                             &result.top_tokens[top], &result.top_logprobs[top]});
    if (finish != FinishReason::none) cancel(request.id);
  }
  for (Request* request : finished_) {
    if (request->params.pooling != Pooling::none) {
      PooledEvent pooled{request->id, {}};
      for (const double sum : request->pooled) pooled.hidden.push_back(static_cast<float>(sum / static_cast<double>(request->num_pooled())));
      events.pooled.push_back(std::move(pooled));
    }
    events.tokens.push_back(end_without_token(request->id, FinishReason::length));
    cancel(request->id);
  }
  pages_.release(replaced_);
}

FinishReason Scheduler::finish_reason(const Request& request) const {
  const auto last_is_in = [&](const std::vector<int32_t>& ids) { return std::find(ids.begin(), ids.end(), request.tokens.back()) != ids.end(); };
  const SamplingParams& params = request.params;
  if (last_is_in(params.stop_token_ids) || (!params.ignore_eos && last_is_in(params.eos_token_ids))) return FinishReason::stop;
  const bool full = request.num_generated() >= request.params.max_tokens || request.num_prompt_tokens() + request.num_generated() >= max_model_len_;
  return full ? FinishReason::length : FinishReason::none;
}

void Scheduler::check_integrity() const {
  std::vector<const std::vector<int32_t>*> holders;
  for (const auto& request : running_) holders.push_back(&request->pages);
  for (const auto& request : waiting_) holders.push_back(&request->pages);
  pages_.check_integrity(holders);
}

}  // namespace parley

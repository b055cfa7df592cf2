#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/arithmetic.h"
#include "engine/token_rules.h"

namespace parley {
namespace {

using Queue = std::deque<std::unique_ptr<Request>>;

// Puts a request in its place.
Queue::iterator insert(Queue& queue, std::unique_ptr<Request> request) {
  const auto is_before = [](const auto& a, const auto& b) { return a->is_before(*b); };
  const auto place = std::upper_bound(queue.begin(), queue.end(), request, is_before);
  return queue.insert(place, std::move(request));
}

Queue::iterator find(Queue& queue, uint32_t id) {
  return std::find_if(queue.begin(), queue.end(), [id](const auto& request) { return request->id == id; });
}

}  // namespace

Scheduler::Scheduler(const ModelSpec& spec, const EngineOptions& options, int64_t num_pages, int64_t max_model_len)
    : max_model_len_(max_model_len),
      max_num_seqs_(options.max_num_seqs),
      max_num_batched_tokens_(options.max_num_batched_tokens),
      pace_prompts_(options.pace_prompts),
      num_encoder_layers_(spec.num_encoder_layers),
      num_sampled_ids_(spec.num_sampled_ids),
      pages_(num_pages, options.prefix_caching) {}

void Scheduler::add(std::unique_ptr<Request> request) {
  earliest_deadline_ms_ = std::min(earliest_deadline_ms_, request->deadline_ms);
  insert(waiting_, std::move(request));
}

bool Scheduler::cancel(uint32_t id) {
  for (Queue* queue : {&running_, &waiting_, &paused_}) {
    const auto found = find(*queue, id);
    if (found == queue->end()) continue;
    release(**found);
    if (is_chained_) {
      next_step_->forget(std::move(*found));
    } else {
      next_step_->drop(**found);
    }
    queue->erase(found);
    return true;
  }
  return false;
}

void Scheduler::acknowledge(uint32_t id, int64_t num_tokens) {
  for (Queue* queue : {&running_, &waiting_, &paused_}) {
    const auto found = find(*queue, id);
    if (found == queue->end()) continue;
    Request& request = **found;
    request.num_acknowledged = std::min(request.num_generated(), request.num_acknowledged + num_tokens);
    if (queue == &paused_ && !request.is_ahead()) resume(found);
    return;
  }
}

void Scheduler::expire(int64_t now_ms, StepEvents& events) {
  if (now_ms < earliest_deadline_ms_) return;
  earliest_deadline_ms_ = Request::kNoDeadline;
  const auto is_late = [&](const std::unique_ptr<Request>& request) {
    if (request->deadline_ms <= now_ms) {
      events.tokens.push_back(end_without_token(request->id, FinishReason::timeout));
      return true;
    }
    earliest_deadline_ms_ = std::min(earliest_deadline_ms_, request->deadline_ms);
    return false;
  };
  waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), is_late), waiting_.end());
}

std::vector<uint32_t> Scheduler::clear() {
  std::vector<uint32_t> ids;
  for (Queue* queue : {&running_, &waiting_, &paused_}) {
    for (const auto& request : *queue) {
      ids.push_back(request->id);
      release(*request);
    }
    queue->clear();
  }
  is_chained_ = false;
  begin_step();
  pages_.forget();
  return ids;
}

void Scheduler::begin_step() {
  next_step_->begin();
  ++num_steps_;
}

void Scheduler::look_ahead() {
  for (Request* request : running_step_->sampled()) {
    if (request != nullptr && decodes_next(*request)) request->expect();
  }
  for (const auto& request : running_) {
    if (gives_way(*request) || next_step_->num_rows() == max_num_batched_tokens_) return;
    if (!request->expects()) continue;
    if (!pages_.ensure(*request, request->size(), next_step_->copies())) return;
    compute(*request, 1);
  }
}

// Whether a request for which a step chooses a token goes on with it, unless it is one that ends it.
bool Scheduler::decodes_next(const Request& request) const {
  const int64_t num_generated = request.num_generated() + 1;
  return num_generated < request.params.max_tokens && request.num_prompt_tokens() + num_generated < max_model_len_ &&
         !request.is_ahead(num_generated);
}

const Step* Scheduler::chain() {
  if (!running_step_->step().only_chooses()) return nullptr;
  for (const Request* request : running_step_->sampled()) {
    if (request == nullptr || !request->expects()) continue;
    if (!is_planned(*request) || depends_on_tokens(request->params, request->num_generated())) return nullptr;
  }
  // Without a row the device has nothing to go on with; those who wait may have more room when those who end now are gone.
  if (next_step_->num_rows() == 0) return nullptr;
  complete(true);
  is_chained_ = true;
  return &next_step_->step();
}

const Step& Scheduler::schedule() {
  if (!is_chained_) next_step_->fill_in();
  for (Request* request : next_step_->sequences()) pages_.publish(*request);
  if (!is_chained_) complete(false);
  is_chained_ = false;
  std::swap(next_step_, running_step_);
  running_load_ = next_load_;
  begin_step();
  return running_step_->step();
}

// Requests that have a seat until the running step has run, and no longer.
int64_t Scheduler::num_leaving() const {
  const auto leaves = [](const Request* request) { return request != nullptr && !request->expects() && !request->pages.empty(); };
  return std::count_if(running_step_->sampled().begin(), running_step_->sampled().end(), leaves);
}

// All that the next step computes besides what look_ahead() began it with.
void Scheduler::complete(bool is_chained) {
  make_way();
  decode();
  next_load_.num_decodes = next_step_->num_rows();
  int64_t allowed = max_num_batched_tokens_ - next_load_.num_decodes;
  if (pace_prompts_) allowed = std::min(allowed, pace_.save_up(next_load_.num_decodes, std::max<int64_t>(0, num_prompts() - 1)));
  int64_t budget = allowed;
  go_on_reading(budget);
  admit(max_num_seqs_ + (is_chained ? num_leaving() : 0), budget);
  next_load_.num_read = allowed - budget;
  next_step_->end();
}

// Whether the first in the queue may take a request's seat and pages.
bool Scheduler::gives_way(const Request& request) const {
  return !waiting_.empty() && request.params.priority > waiting_.front()->params.priority;
}

// The first in the queue takes seats and pages of requests of lower priority, if that is enough for it.
void Scheduler::make_way() {
  if (waiting_.empty()) return;
  const int64_t num_pages = ceil_div(waiting_.front()->size(), kPageSize);
  const auto may_go = [&](const std::unique_ptr<Request>& request) { return gives_way(*request) && !is_planned(*request); };
  int64_t num_free = pages_.num_free();
  for (const auto& request : paused_) num_free += static_cast<int64_t>(request->pages.size());
  for (auto last = running_.rbegin(); last != running_.rend() && may_go(*last); ++last) num_free += static_cast<int64_t>((*last)->pages.size());
  if (num_free < num_pages) return;
  const auto lacks_pages = [&] {
    while (pages_.num_free() < num_pages) {
      if (!reclaim()) return true;
    }
    return false;
  };
  while (!running_.empty() && may_go(running_.back()) && (num_running() >= max_num_seqs_ || lacks_pages())) {
    requeue(running_.end() - 1);
  }
}

// One token of each request that has no more to compute and no row yet. Only requests behind it give way to one, and none that has a row.
void Scheduler::decode() {
  for (size_t i = 0; i < running_.size() && next_step_->num_rows() < max_num_batched_tokens_; ++i) {
    Request& request = *running_[i];
    if (!request.decodes()) continue;
    if (!make_room(request)) return;
    compute(request, 1);
  }
}

// Prompts that are to be read, in this step or later: of those that have a seat or could have one.
int64_t Scheduler::num_prompts() const {
  int64_t count = std::min(num_waiting(), max_num_seqs_ - num_running());
  for (const auto& request : running_) count += !request->pages.empty() && request->num_pending() > 0;
  return count;
}

void Scheduler::go_on_reading(int64_t& budget) {
  uint32_t leading = 0;  // group whose prompt is being read
  for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Request& request = *running_[i];
    const bool has_pages = !request.pages.empty();
    if (request.num_pending() == 0 || request.decodes() || (!has_pages && request.group != 0 && request.group == leading)) continue;
    if (!has_pages && !begin(request)) {  // it followed one that was cancelled
      requeue(running_.begin() + static_cast<std::ptrdiff_t>(i--));
      continue;
    }
    leading = request.group;
    read(request, budget);
  }
}

// Requests from the queue, as long as budget, seats and pages for the whole of what they have to read last.
void Scheduler::admit(int64_t num_seats, int64_t& budget) {
  while (!waiting_.empty() && budget > 0 && num_running() < num_seats) {
    const auto place = seat_first();
    Request& request = **place;
    if (follows(place)) continue;
    if (!begin(request)) return requeue(place);
    if (request.group != 0) seat_followers(request.group, num_seats);
    read(request, budget);
  }
}

// The other choices of the first one's prompt, as far as there are seats. The rest of them has begun too, as far as its time limit goes.
void Scheduler::seat_followers(uint32_t group, int64_t num_seats) {
  while (!waiting_.empty() && waiting_.front()->group == group && num_running() < num_seats) seat_first();
  for (auto other = waiting_.begin(); other != waiting_.end() && (*other)->group == group; ++other) {
    (*other)->deadline_ms = Request::kNoDeadline;
  }
}

Scheduler::Queue::iterator Scheduler::seat_first() {
  std::unique_ptr<Request> request = std::move(waiting_.front());
  waiting_.pop_front();
  request->deadline_ms = Request::kNoDeadline;
  return insert(running_, std::move(request));
}

// Whether a request that was just seated has another choice of its prompt before it that is to read the prompt.
bool Scheduler::follows(Queue::const_iterator request) const {
  if ((*request)->group == 0 || request == running_.begin()) return false;
  const Request& before = **(request - 1);
  return before.group == (*request)->group && before.num_generated() == 0 && before.num_pending() > 0;
}

std::vector<Request*> Scheduler::followers_of(const Request& request) const {
  std::vector<Request*> followers;
  if (request.group == 0 || request.num_generated() > 0) return followers;
  const auto is_at_most = [](const Request& a, const auto& b) { return a.is_before(*b); };
  for (auto next = std::upper_bound(running_.begin(), running_.end(), request, is_at_most);
       next != running_.end() && (*next)->group == request.group; ++next) {
    // One that came late missed what was told of the prompt: it reads for itself afterwards.
    const bool knows_all = (*next)->reads_cache() || (*next)->num_seen == request.num_seen;
    if ((*next)->pages.empty() && knows_all) followers.push_back(next->get());
  }
  return followers;
}

// Pages for the whole of what a request has to read; false, and nothing taken, if too few are free.
bool Scheduler::begin(Request& request) {
  pages_.reuse(request);
  if (ensure(request)) return true;
  release(request);
  return false;
}

// As much of what a request has to read as the budget allows.
void Scheduler::read(Request& request, int64_t& budget) {
  if (!request.is_encoded()) return encode(request, budget);
  pages_.reuse(request);
  const int64_t num_tokens = std::min(request.num_pending(), budget);
  budget -= num_tokens;
  compute(request, num_tokens);
}

// A prompt goes through the encoder whole. One that is longer than the budget goes through some blocks in each step, at least one, and
// until it is through no other one begins, because its hidden states wait in the encoder.
void Scheduler::encode(Request& request, int64_t& budget) {
  if (encoding_ != nullptr && encoding_ != &request) return;
  const int64_t first = request.num_encoded_layers;
  const int64_t last = std::min(num_encoder_layers_, first + std::max<int64_t>(1, budget * num_encoder_layers_ / request.encoder_size));
  next_step_->append({{request.tokens.data(), request.encoder_size}, {request.pages.data(), request.decoder_begin() / kPageSize}, first, last});
  request.num_encoded_layers = last;
  const bool done = last == num_encoder_layers_;
  encoding_ = done ? nullptr : &request;
  if (done) request.num_computed = request.num_seen = request.decoder_begin();  // its first row comes with the next step
  budget -= std::min(budget, ceil_div(request.encoder_size * (last - first), num_encoder_layers_));
}

// Rows for the next tokens of a request. If they end its prompt, those that follow it go on from there.
void Scheduler::compute(Request& request, int64_t num_tokens) {
  const std::vector<Request*> followers = followers_of(request);
  next_step_->append(request, num_tokens, followers);
  request.step = num_steps_;
  pages_.publish(request);
  if (request.num_pending() > 0 || request.num_generated() > 0) return;
  count_prompt(request);
  if (pages_.caches(request) && request.reads_cache()) {
    num_prefix_queries_ += request.num_prompt_tokens();
    num_prefix_hits_ += request.num_cached;
  }
  for (Request* follower : followers) {
    pages_.share(request, *follower);
    next_step_->append_choice(*follower);
    follower->step = num_steps_;
    count_prompt(*follower);
  }
}

void Scheduler::count_prompt(const Request& request) {
  num_prompt_tokens_ += request.num_prompt_tokens();
  if (request.num_cached > 0) next_step_->append({request.id, request.num_cached});
}

// Pages for the next token of a request that decodes, taken from those behind it if need be. False if it was the last itself and had to
// go back to the queue, or if the last has a row of the step already: it gives way to the next one.
bool Scheduler::make_room(Request& request) {
  while (!ensure(request)) {
    if (is_planned(*running_.back())) return false;
    const bool itself = running_.back().get() == &request;
    requeue(running_.end() - 1);
    if (itself) return false;
  }
  return true;
}

// Takes a request's seat and pages and queues it in its place; its keys and values are computed again later, to the same bits.
void Scheduler::requeue(Queue::iterator place) {
  std::unique_ptr<Request> request = std::move(*place);
  running_.erase(place);
  if (!request->pages.empty()) ++num_preemptions_;
  release(*request);
  insert(waiting_, std::move(request));
}

// A request that runs gives its seat to others until its reader has caught up.
void Scheduler::pause(const Request& request) {
  Queue& queue = find(running_, request.id) == running_.end() ? waiting_ : running_;  // where a chained step has preempted it
  const auto place = find(queue, request.id);
  std::unique_ptr<Request> paused = std::move(*place);
  queue.erase(place);
  insert(paused_, std::move(paused));
}

// It takes its seat again if there is one, else it queues as if it had been preempted.
void Scheduler::resume(Queue::iterator place) {
  std::unique_ptr<Request> request = std::move(*place);
  paused_.erase(place);
  if (num_running() < max_num_seqs_ && !request->pages.empty()) {
    insert(running_, std::move(request));
  } else {
    release(*request);
    insert(waiting_, std::move(request));
  }
}

// Pages for all of a request's tokens, taken from those that are paused if need be. False, and nothing taken for it, if there are too few.
bool Scheduler::ensure(Request& request) {
  while (!pages_.ensure(request, request.size(), next_step_->copies())) {
    if (!reclaim()) return false;
  }
  return true;
}

// Takes the pages of the last in rank of the paused that have some; false if none has.
bool Scheduler::reclaim() {
  const auto last = std::find_if(paused_.rbegin(), paused_.rend(), [](const auto& request) { return !request->pages.empty(); });
  if (last == paused_.rend()) return false;
  ++num_preemptions_;
  release(**last);
  return true;
}

void Scheduler::release(Request& request) {
  pages_.release(request);
  if (encoding_ == &request) encoding_ = nullptr;
}

void Scheduler::collect(const StepResult& result, double ms, StepEvents& events) {
  pace_.ran(running_load_.num_decodes, running_load_.num_read, ms);
  events.result = &result;
  running_step_->collect(events);
  for (size_t r = 0; r < running_step_->sampled().size(); ++r) {
    if (running_step_->sampled()[r] == nullptr) continue;
    Request& request = *running_step_->sampled()[r];
    const int32_t token = result.tokens[r];
    ++num_generation_tokens_;
    // Without a token only this request ends: its rules left none, or no logit was a number.
    FinishReason finish;
    if (token >= 0) {
      request.append(token);
      finish = finish_reason(request);
    } else {
      finish = forbids_all(request.params, request.forbidden, num_sampled_ids_) ? FinishReason::exhausted : FinishReason::error;
    }
    const size_t top = r * static_cast<size_t>(kMaxLogprobs);
    events.tokens.push_back({request.id, finish, token, result.logprobs[r], result.ranks[r], num_top(request.params),
                             &result.top_tokens[top], &result.top_logprobs[top]});
    if (finish != FinishReason::none) {
      cancel(request.id);
    } else if (request.is_ahead()) {
      pause(request);
    }
  }
  for (const Request* request : running_step_->ended()) {
    events.tokens.push_back(end_without_token(request->id, FinishReason::length));
    cancel(request->id);
  }
  pages_.settle();
}

FinishReason Scheduler::finish_reason(const Request& request) const {
  const auto last_is_in = [&](const std::vector<int32_t>& ids) { return std::find(ids.begin(), ids.end(), request.tokens.back()) != ids.end(); };
  const SamplingParams& params = request.params;
  if (last_is_in(params.stop_token_ids) || (!params.ignore_eos && last_is_in(params.eos_token_ids))) return FinishReason::stop;
  const bool full = request.num_generated() >= params.max_tokens || request.num_prompt_tokens() + request.num_generated() >= max_model_len_;
  return full ? FinishReason::length : FinishReason::none;
}

void Scheduler::check_integrity() const {
  std::vector<const std::vector<int32_t>*> holders;
  for (const Queue* queue : {&running_, &waiting_, &paused_}) {
    for (const auto& request : *queue) holders.push_back(&request->pages);
  }
  pages_.check_integrity(std::move(holders));
}

}  // namespace parley

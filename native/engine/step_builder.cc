#include "engine/step_builder.h"

#include <algorithm>

namespace parley {

void StepBuilder::begin() {
  step_.clear();
  sequences_.clear();
  sampled_.clear();
  ended_.clear();
  cached_.clear();
  scored_.clear();
  forgotten_.clear();
}

void StepBuilder::append(Request& request, int64_t num_tokens, const std::vector<Request*>& followers) {
  for (int64_t i = 0; i < num_tokens; ++i) {
    const int64_t position = request.num_computed + i;
    const int32_t token = request.tokens[static_cast<size_t>(position)];
    step_.tokens.push_back(token == Request::kUnknownToken ? kChosenToken + static_cast<int32_t>(request.sample_row) : token);
    step_.positions.push_back(static_cast<int32_t>(position - request.decoder_begin()));
    if (request.encoder_size > 0) step_.encoder_positions.push_back(static_cast<int32_t>(request.encoder_size - 1));
    step_.slots.push_back(static_cast<int32_t>(request.page(position / kPageSize) * kPageSize + position % kPageSize));
    step_.sequences.push_back(static_cast<int32_t>(sequences_.size()));
  }
  sequences_.push_back(&request);
  append_reports(request, num_tokens, followers);
  request.num_computed += num_tokens;
  if (request.num_pending() == 0) append_choice(request);
}

void StepBuilder::append_choice(Request& request) {
  if (request.params.max_tokens == 0) {
    ended_.push_back(&request);
    return;
  }
  request.sample_row = static_cast<int64_t>(sampled_.size());
  sampled_.push_back(&request);
  step_.sample_rows.push_back(static_cast<int32_t>(step_.num_rows() - 1));
}

// The last one takes its place, in all lists.
void StepBuilder::drop(const Request& request) {
  const auto found = std::find(sequences_.begin(), sequences_.end(), &request);
  if (found == sequences_.end()) return;
  const auto place = static_cast<size_t>(found - sequences_.begin());
  const auto take_out = [place](auto& list) {
    if (list.empty()) return;  // encoder_positions, where no prompt is encoded
    list[place] = list.back();
    list.pop_back();
  };
  take_out(step_.tokens);
  take_out(step_.positions);
  take_out(step_.encoder_positions);
  take_out(step_.slots);
  take_out(sequences_);
  take_out(sampled_);
  if (place < sampled_.size()) sampled_[place]->sample_row = static_cast<int64_t>(place);
  step_.sequences.pop_back();  // these two count the rows
  step_.sample_rows.pop_back();
}

void StepBuilder::forget(std::unique_ptr<Request> request) {
  const auto erase = [](auto& list, const auto& is_its) { list.erase(std::remove_if(list.begin(), list.end(), is_its), list.end()); };
  const auto is_it = [&](const Request* other) { return other == request.get(); };
  const auto has_id = [&](const auto& event) { return event.request == request->id; };
  erase(sequences_, is_it);
  erase(ended_, is_it);
  std::replace_if(sampled_.begin(), sampled_.end(), is_it, nullptr);
  erase(cached_, has_id);
  erase(scored_, has_id);
  forgotten_.push_back(std::move(request));
}

// What the rows that append() just appended tell of the prompt.
void StepBuilder::append_reports(Request& request, int64_t num_tokens, const std::vector<Request*>& followers) {
  const int64_t first_row = step_.num_rows() - num_tokens - request.num_computed;  // of position 0, if it were here
  const int64_t begin = std::max(request.num_computed, request.num_seen);
  request.num_cached += std::max<int64_t>(0, std::min(request.num_computed, request.prompt_size) - request.num_seen);
  const int64_t end = std::min(request.num_computed + num_tokens, request.prompt_size);
  PromptEvent scored{request.id, begin + 1, 0, request.params.num_prompt_logprobs, static_cast<int64_t>(step_.scores.size())};
  for (int64_t position = begin; position < end; ++position) {
    const int32_t row = static_cast<int32_t>(first_row + position);
    if (request.is_scored(position)) {
      step_.score_rows.push_back(row);
      step_.scores.push_back({request.tokens[static_cast<size_t>(position) + 1], static_cast<int32_t>(scored.num_top)});
      ++scored.count;
    }
    if (request.is_pooled(position)) {
      step_.pool_rows.push_back(row);
      step_.pool_sums.push_back(&request.pooled);
    }
  }
  request.num_seen = std::max(request.num_seen, end);
  if (scored.count > 0) scored_.push_back(scored);
  for (Request* follower : followers) {
    follower->num_seen = request.num_seen;
    scored.request = follower->id;
    if (scored.count > 0) scored_.push_back(scored);
  }
}

void StepBuilder::fill_in() {
  for (size_t row = 0; row < sequences_.size(); ++row) step_.tokens[row] = sequences_[row]->tokens.back();
}

void StepBuilder::end() {
  Step& step = step_;
  for (Request* request : sampled_) {
    find_forbidden(request->params, request->generated(), request->forbidden);
    step.samples.push_back({&request->params,
                            request->counts.span(),
                            {request->forbidden.data(), static_cast<int64_t>(request->forbidden.size())},
                            request->num_generated()});
  }
  step.num_sequences = static_cast<int64_t>(sequences_.size());
  for (const Request* request : sequences_) {
    const int64_t num_encoder_pages = request->decoder_begin() / kPageSize;
    step.max_encoder_pages = std::max(step.max_encoder_pages, num_encoder_pages);
    step.max_pages = std::max(step.max_pages, static_cast<int64_t>(request->pages.size()) - num_encoder_pages);
  }
  step.page_table.resize(static_cast<size_t>(step.num_sequences * step.max_pages), 0);
  step.encoder_page_table.resize(static_cast<size_t>(step.num_sequences * step.max_encoder_pages), 0);
  for (int64_t s = 0; s < step.num_sequences; ++s) {
    const Request& request = *sequences_[static_cast<size_t>(s)];
    const auto decoder_pages = request.pages.begin() + request.decoder_begin() / kPageSize;
    std::copy(request.pages.begin(), decoder_pages, step.encoder_page_table.begin() + s * step.max_encoder_pages);
    std::copy(decoder_pages, request.pages.end(), step.page_table.begin() + s * step.max_pages);
  }
}

void StepBuilder::collect(StepEvents& events) const {
  events.cached.insert(events.cached.end(), cached_.begin(), cached_.end());
  events.prompts.insert(events.prompts.end(), scored_.begin(), scored_.end());
  for (const Request* request : ended_) {
    if (request->params.pooling == Pooling::none) continue;
    PooledEvent pooled{request->id, {}};
    for (const double sum : request->pooled) pooled.hidden.push_back(static_cast<float>(sum / static_cast<double>(request->num_pooled())));
    events.pooled.push_back(std::move(pooled));
  }
}

}  // namespace parley

// Tokens of requests become the rows of a step, and what the step brought becomes events.
#pragma once

#include <vector>

#include "engine/events.h"
#include "engine/request.h"

namespace parley {

class StepBuilder {
 public:
  // Begins an empty step.
  void begin(Step& step);

  // The next `num_tokens` of a request, for whose keys and values it has pages. If they end what is known of it, the last row chooses a
  // token. followers: other choices of the request, which this step tells the same of the prompt.
  void append(Request& request, int64_t num_tokens, const std::vector<Request*>& followers);

  // A prompt's way through some of the encoder's blocks.
  void append(const EncoderJob& job) { step_->encoder_jobs.push_back(job); }

  // The last row that was appended chooses a token of this request too, or ends it.
  void append_choice(Request& request);

  // Ends the step.
  void end();

  int64_t num_rows() const { return step_->num_rows(); }
  std::vector<PageCopy>& copies() { return step_->page_copies; }

  // After the step ran: what it told of prompts. Tokens are appended to the requests of sampled(), whose events the caller adds.
  void collect(const StepResult& result, StepEvents& events) const;

  // Requests behind the step's sample rows.
  const std::vector<Request*>& sampled() const { return sampled_; }

  // Requests that end with the step without a token.
  const std::vector<Request*>& ended() const { return ended_; }

 private:
  void append_reports(Request& request, int64_t num_tokens, const std::vector<Request*>& followers);

  Step* step_ = nullptr;
  std::vector<Request*> sequences_;  // requests behind the step's sequences
  std::vector<Request*> sampled_;
  std::vector<Request*> ended_;
  std::vector<PromptEvent> scored_;  // the step's score rows
};

}  // namespace parley

// Tokens of requests become the rows of a step, and what the step brought becomes events.
//
// A step is begun while the one before it runs: with a row for each request that goes on decoding, whose token is filled in when it is
// known, or left to the device where that begins the step before then. What ends meanwhile is dropped again, or forgotten. Then come the rows
// of prompts.
#pragma once

#include <memory>
#include <vector>

#include "engine/events.h"
#include "engine/request.h"

namespace parley {

class StepBuilder {
 public:
  // Begins an empty step.
  void begin();

  // The next `num_tokens` of a request, for whose keys and values it has pages. If they end what is known of it, the last row chooses a
  // token. followers: other choices of the request, which this step tells the same of the prompt.
  void append(Request& request, int64_t num_tokens, const std::vector<Request*>& followers);

  // A prompt's way through some of the encoder's blocks.
  void append(const EncoderJob& job) { step_.encoder_jobs.push_back(job); }

  // The last row that was appended chooses a token of this request too, or ends it.
  void append_choice(Request& request);

  // The prefix cache spares tokens of a request's prompt.
  void append(CachedEvent cached) { cached_.push_back(cached); }

  // Takes a request's row out, if it has one. As long as all rows decode.
  void drop(const Request& request);

  // A request has ended while a device computes its rows, or has begun to: nobody is told what they bring. It is kept until the next begin().
  void forget(std::unique_ptr<Request> request);

  // The tokens of all rows are known now. As long as all rows decode.
  void fill_in();

  // Ends the step.
  void end();

  const Step& step() const { return step_; }
  int64_t num_rows() const { return step_.num_rows(); }
  std::vector<PageCopy>& copies() { return step_.page_copies; }

  // After the step ran: what it told of prompts. Tokens are appended to the requests of sampled(), whose events the caller adds.
  void collect(StepEvents& events) const;

  // Requests behind the step's sequences, and its sample rows, there null for one that was forgotten.
  const std::vector<Request*>& sequences() const { return sequences_; }
  const std::vector<Request*>& sampled() const { return sampled_; }

  // Requests that end with the step without a token.
  const std::vector<Request*>& ended() const { return ended_; }

 private:
  void append_reports(Request& request, int64_t num_tokens, const std::vector<Request*>& followers);

  Step step_;
  std::vector<Request*> sequences_;
  std::vector<Request*> sampled_;
  std::vector<Request*> ended_;
  std::vector<CachedEvent> cached_;  // of requests whose prompt ends in the step
  std::vector<PromptEvent> scored_;  // the step's score rows
  std::vector<std::unique_ptr<Request>> forgotten_;
};

}  // namespace parley

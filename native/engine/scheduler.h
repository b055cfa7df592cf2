// Which tokens of which requests are computed in the next step (continuous batching). Knows pages and counts, no tensor.
//
// There are no phases: a request has tokens whose keys and values are not computed yet, one while it decodes, many while its prompt
// is read, and a step takes as many as the token budget allows, decodes first.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "engine/page_pool.h"
#include "engine/request.h"
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

// Log-probabilities of `count` tokens of a prompt, the first of them at `first_position`. Rows of the StepResult's score_*.
struct PromptEvent {
  uint32_t request;
  int64_t first_position;
  int64_t count;
  int64_t num_top;
  int64_t first_row;
};

// Tokens of a request's prompt that the prefix cache spared.
struct CachedEvent {
  uint32_t request;
  int64_t num_tokens;
};

// A request's pooled hidden state. [hidden]
struct PooledEvent {
  uint32_t request;
  std::vector<float> hidden;
};

// What a step brought, in the order in which the caller is told.
struct StepEvents {
  std::vector<CachedEvent> cached;
  std::vector<PromptEvent> prompts;
  std::vector<PooledEvent> pooled;
  std::vector<TokenEvent> tokens;

  void clear() {
    cached.clear();
    prompts.clear();
    pooled.clear();
    tokens.clear();
  }
};

class Scheduler {
 public:
  // num_encoder_layers: blocks that read a prompt before the decoder begins; 0: none.
  Scheduler(const EngineOptions& options, int64_t num_pages, int64_t max_model_len, int64_t num_encoder_layers);

  // Puts a request at the end of the queue. It must fit into max_model_len and the pages: Engine::submit checks.
  void add(std::unique_ptr<Request> request);

  // Ends a request wherever it is and frees its pages. False if there is none of that id (it may just have finished).
  bool cancel(uint32_t id);

  // Ends all requests and forgets all pages; returns the requests' ids.
  std::vector<uint32_t> clear();

  // Fills `step` with the next step; empty if nothing is to do.
  void schedule(Step& step);

  // Takes the results of the step that schedule() built last: appends tokens, ends requests, appends the events.
  void collect(const StepResult& result, StepEvents& events);

  bool idle() const { return waiting_.empty() && running_.empty(); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_pages_used() const { return pages_.num_used(); }
  int64_t num_preemptions() const { return num_preemptions_; }
  int64_t num_prompt_tokens() const { return num_prompt_tokens_; }
  int64_t num_prefix_queries() const { return num_prefix_queries_; }
  int64_t num_prefix_hits() const { return num_prefix_hits_; }

  // Between two steps. Throws Error unless every page has the requests as holders that say so, and is free if there are none.
  void check_integrity() const;

 private:
  bool caches(const Request& request) const { return prefix_caching_ && request.encoder_size == 0; }
  void reuse_pages(Request& request);
  void publish_pages(Request& request);
  bool ensure_pages(Request& request, int64_t num_tokens);
  bool make_room(Request& request, int64_t num_tokens);
  void preempt_newest();
  void admit(int64_t budget, Step& step);
  int64_t read(Request& request, int64_t budget, Step& step);
  int64_t encode(Request& request, int64_t budget, Step& step);
  void append_rows(Request& request, int64_t num_tokens, Step& step);
  void write_page_tables(Step& step) const;
  void release(Request& request);
  void append_reports(Request& request, int64_t num_tokens, Step& step);
  void count_prompt(const Request& request);
  FinishReason finish_reason(const Request& request) const;

  const int64_t max_model_len_;
  const int64_t max_num_seqs_;
  const int64_t max_num_batched_tokens_;
  const bool prefix_caching_;
  const int64_t num_encoder_layers_;
  PagePool pages_;
  std::deque<std::unique_ptr<Request>> waiting_;   // first come, first served
  std::vector<std::unique_ptr<Request>> running_;  // hold pages; oldest first
  Request* encoding_ = nullptr;                    // whose prompt has passed some of the encoder's blocks
  std::vector<Request*> sampled_;                  // requests behind the step's sample rows
  std::vector<Request*> scheduled_;                // requests behind the step's sequences
  std::vector<Request*> finished_;                 // requests that end with the step without a token
  std::vector<PromptEvent> scored_;                // the step's score rows
  std::vector<CachedEvent> cached_;                // of requests whose prompt ends in the step
  std::vector<int32_t> replaced_;                  // pages that the step writes and whose holders read others with the same content
  int64_t num_preemptions_ = 0;
  int64_t num_prompt_tokens_ = 0;
  int64_t num_prefix_queries_ = 0;
  int64_t num_prefix_hits_ = 0;
};

}  // namespace parley

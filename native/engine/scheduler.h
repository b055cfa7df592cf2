// Who waits, who runs, and which tokens of whom the next step computes (continuous batching). Knows pages and counts, no tensor.
//
// There are no phases: a request has tokens whose keys and values are not computed yet, one while it decodes, many while its prompt
// is read, and a step takes as many as the token budget and the pace of prompts allow, decodes first.
//
// Requests have a rank: by priority, the lower number first, then by arrival. The first in rank is served first and gives way last;
// of those that want to run it always does, so nobody starves whom no higher priority overtakes for ever.
//
// A request whose reader is behind is paused: it gives up its seat, and keeps its pages until somebody else needs them.
//
// While a step runs, look_ahead() begins the next one with those who certainly decode in it unless a stop token ends them now, which
// nobody gives way for. The rest of it is done when the step has run: by then those who ended are out, those who came are in. Or chain() does
// it at once, where the device can begin that step before the host knows what this one chose: its rows of requests that a stop token ends are
// computed for nobody. Pages that are given back meanwhile may still be written by it, and are safe: a device takes steps in order, and who gets
// a page comes with a later one.
//
// The choices of one prompt stand together. While the first of them reads it, the others have a seat and no pages: they follow. When it
// has read the prompt they go on from there, with its pages.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <vector>

#include "engine/events.h"
#include "engine/prefill_pace.h"
#include "engine/request.h"
#include "engine/request_pages.h"
#include "engine/step_builder.h"

namespace parley {

// Choices of one prompt, at most; the range of SamplingParams::choice.
constexpr int64_t kMaxChoices = 65536;

class Scheduler {
 public:
  Scheduler(const ModelSpec& spec, const EngineOptions& options, int64_t num_pages, int64_t max_model_len);

  // Queues a request. It must fit into max_model_len and the pages: Engine::submit checks.
  void add(std::unique_ptr<Request> request);

  // Ends a request wherever it is and frees its pages. False if there is none of that id (it may just have finished).
  bool cancel(uint32_t id);

  // The reader has taken so many more tokens of a request: one that was paused goes on. Unknown ids are ignored.
  void acknowledge(uint32_t id, int64_t num_tokens);

  // Ends the requests that have waited until `now_ms` for their turn and must not wait any longer.
  void expire(int64_t now_ms, StepEvents& events);

  // Ends all requests and forgets all pages; returns the requests' ids.
  std::vector<uint32_t> clear();

  // The next step, empty if nothing is to do. It stays as it is until the next but one is begun.
  const Step& schedule();

  // While the step that schedule() gave runs: begins the next one.
  void look_ahead();

  // Behind look_ahead(): completes the next step, which schedule() will give next, and may be computed from now on; null if it must wait for
  // what the running step tells.
  const Step* chain();

  // Takes the results of the step that schedule() gave, and the time that it took: appends tokens, ends requests, appends the events.
  // `result` is read until the events are.
  void collect(const StepResult& result, double ms, StepEvents& events);

  bool idle() const { return waiting_.empty() && running_.empty() && !is_chained_; }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_paused() const { return static_cast<int64_t>(paused_.size()); }
  // Requests that could run if they came now, as far as one can know.
  int64_t num_seats() const { return waiting_.empty() ? max_num_seqs_ - num_running() : 0; }
  int64_t num_pages_used() const { return pages_.num_used(); }
  int64_t num_generation_tokens() const { return num_generation_tokens_; }
  int64_t num_preemptions() const { return num_preemptions_; }
  int64_t num_prompt_tokens() const { return num_prompt_tokens_; }
  int64_t num_prefix_queries() const { return num_prefix_queries_; }
  int64_t num_prefix_hits() const { return num_prefix_hits_; }

  // Between two steps, of which the next may be begun. Throws Error unless every page has the requests as holders that say so, and is free if there are none.
  void check_integrity() const;

 private:
  using Queue = std::deque<std::unique_ptr<Request>>;

  // What a step does.
  struct Load {
    int64_t num_decodes = 0;  // rows that decode
    int64_t num_read = 0;     // tokens of prompts
  };

  bool gives_way(const Request& request) const;
  bool decodes_next(const Request& request) const;
  bool is_planned(const Request& request) const { return request.step == num_steps_; }
  void begin_step();
  void complete(bool is_chained);
  int64_t num_leaving() const;
  void make_way();
  void decode();
  void go_on_reading(int64_t& budget);
  void admit(int64_t num_seats, int64_t& budget);
  int64_t num_prompts() const;
  Queue::iterator seat_first();
  void seat_followers(uint32_t group, int64_t num_seats);
  bool follows(Queue::const_iterator request) const;
  std::vector<Request*> followers_of(const Request& request) const;
  bool begin(Request& request);
  void read(Request& request, int64_t& budget);
  void encode(Request& request, int64_t& budget);
  void compute(Request& request, int64_t num_tokens);
  void count_prompt(const Request& request);
  bool make_room(Request& request);
  void requeue(Queue::iterator place);
  void pause(const Request& request);
  void resume(Queue::iterator place);
  bool ensure(Request& request);
  bool reclaim();
  void release(Request& request);
  FinishReason finish_reason(const Request& request) const;

  const int64_t max_model_len_;
  const int64_t max_num_seqs_;
  const int64_t max_num_batched_tokens_;
  const bool pace_prompts_;
  const int64_t num_encoder_layers_;
  const int64_t num_sampled_ids_;
  RequestPages pages_;
  std::array<StepBuilder, 2> steps_;
  StepBuilder* running_step_ = &steps_[0];
  StepBuilder* next_step_ = &steps_[1];
  bool is_chained_ = false;  // the next step is complete
  int64_t num_steps_ = 1;    // that were begun
  PrefillPace pace_;
  Queue waiting_;                      // in order of rank
  Queue running_;                      // have a seat; in order of rank
  Queue paused_;                       // in order of rank
  Request* encoding_ = nullptr;        // whose prompt has passed some of the encoder's blocks
  Load running_load_;
  Load next_load_;
  int64_t earliest_deadline_ms_ = Request::kNoDeadline;
  int64_t num_generation_tokens_ = 0;
  int64_t num_preemptions_ = 0;
  int64_t num_prompt_tokens_ = 0;
  int64_t num_prefix_queries_ = 0;
  int64_t num_prefix_hits_ = 0;
};

}  // namespace parley

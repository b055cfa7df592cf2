// The engine: one thread that turns requests into steps and steps into tokens. The caller's threads only leave requests and
// cancellations at the door, and the engine never waits for whom it tells.
//
// While a step runs, the events of the one before are told and the next one is begun (Scheduler::look_ahead). Between two steps lies only
// what needs the results: tokens are appended, requests end, those that came join, the last tokens are filled in. On GPUs not even that, as
// long as nothing but the tokens themselves goes from one step to the next: they have that one before they are done with this one
// (Scheduler::chain).
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/scheduler.h"
#include "model/rank_group.h"

namespace parley {

class Engine {
 public:
  // Called on the engine's thread, once a step with everything that the step brought. `failure` is empty unless the step failed:
  // then it says why, and the events end the requests that were lost. Without events it is a warning.
  using OnEvents = std::function<void(PackedEvents&& events, std::string&& failure)>;

  Engine(std::unique_ptr<RankGroup> ranks, const EngineOptions& options, OnEvents on_events);

  // Ends all requests with 'cancelled' and joins the thread.
  ~Engine();

  // Queues `num_choices` requests with the same prompt, which differ in their `choice`, and returns the first one's id; the others' ids
  // follow. Throws Error if they can never run. Any thread.
  uint32_t submit(const std::vector<int32_t>& prompt, const SamplingParams& params, int64_t num_choices);

  // Ends a request; its pages are free before the next step is made. Unknown ids are ignored. Any thread.
  void cancel(uint32_t id);

  // The reader has taken `num_tokens` more of a request that has max_unread. Unknown ids are ignored. Any thread.
  void acknowledge(uint32_t id, int64_t num_tokens);

  EngineInfo info() const { return info_; }
  EngineStats stats() const;

 private:
  using Clock = std::chrono::steady_clock;

  struct Acknowledgement {
    uint32_t request;
    int64_t num_tokens;
  };

  void loop();
  void run_step();
  void compute(const Step& step);
  StepRun next_step();
  void tell();
  void end_all(FinishReason reason, std::string failure);
  void check_request(const std::vector<int32_t>& prompt, const SamplingParams& params, int64_t num_choices) const;
  void publish_stats();
  static double ms_since(Clock::time_point begin);
  static int64_t now_ms();

  const std::unique_ptr<RankGroup> ranks_;
  const EngineInfo info_;
  const EngineOptions options_;
  const OnEvents on_events_;

  mutable std::mutex mutex_;  // guards what follows, up to the engine thread's own
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Request>> submitted_;
  std::vector<uint32_t> cancelled_;
  std::vector<Acknowledgement> acknowledged_;
  uint32_t next_id_ = 1;
  bool stopping_ = false;
  EngineStats stats_;
  Clock::time_point last_progress_;

  // The engine thread's own.
  Scheduler scheduler_;
  std::array<StepResult, 2> results_;  // of the step that runs, and of the one before, whose events are told meanwhile
  StepEvents events_;
  int64_t num_steps_ = 0;
  bool next_is_begun_ = false;       // by the device, while the step before it ran
  Clock::time_point last_end_;       // of a step
  double computing_ms_ = 0;  // of this thread
  double bookkeeping_ms_ = 0;

  std::thread thread_;
};

}  // namespace parley

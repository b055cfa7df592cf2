// The engine: one thread that turns requests into steps and steps into tokens. The caller's threads only leave requests and
// cancellations at the door.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/scheduler.h"
#include "model/worker.h"

namespace parley {

// A step's events for all requests in one packed buffer of 32-bit words. One event is [request, kind, num_words, word * num_words]; the
// words of each EventKind, log-probabilities as float32 bits:
//   token   finish, token (-1: it ends without one), logprob, rank, (token, logprob) * num_top
//   prompt  position of the first of several tokens, num_top, then for each token logprob, rank, (token, logprob) * num_top
//   pooled  float32 * hidden_size
//   cached  tokens of the prompt that the prefix cache spared
using PackedEvents = std::vector<int32_t>;

class Engine {
 public:
  // Called on the engine's thread, once a step with everything that the step brought. `failure` is empty unless the step failed:
  // then it says why, and the events end the requests that were lost.
  using OnEvents = std::function<void(PackedEvents&& events, std::string&& failure)>;

  Engine(std::unique_ptr<Worker> worker, const EngineOptions& options, OnEvents on_events);

  // Ends all requests with 'cancelled' and joins the thread.
  ~Engine();

  // Queues a request and returns its id. Throws Error if it can never run. Any thread.
  uint32_t submit(std::vector<int32_t> prompt, SamplingParams params);

  // Ends a request; its pages are free before the next step begins. Unknown ids are ignored. Any thread.
  void cancel(uint32_t id);

  EngineInfo info() const { return info_; }
  EngineStats stats() const;

 private:
  using Clock = std::chrono::steady_clock;

  void loop();
  void run_step();
  void end_all(FinishReason reason, std::string failure);
  void check_request(const std::vector<int32_t>& prompt, const SamplingParams& params) const;
  void publish_stats();

  const std::unique_ptr<Worker> worker_;
  const EngineInfo info_;
  const bool check_integrity_;
  const OnEvents on_events_;

  mutable std::mutex mutex_;  // guards what follows, up to the engine thread's own
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Request>> submitted_;
  std::vector<uint32_t> cancelled_;
  uint32_t next_id_ = 1;
  bool stopping_ = false;
  EngineStats stats_;
  Clock::time_point last_progress_;

  // The engine thread's own.
  Scheduler scheduler_;
  Step step_;
  StepResult result_;
  StepEvents events_;
  int64_t num_steps_ = 0;
  int64_t num_generation_tokens_ = 0;

  std::thread thread_;
};

}  // namespace parley

// A thread for each rank of a model, all of which run one task together, again and again; and the watch over them.
//
// A rank that fails ends what the others wait for: the task fails on all of them, and the next one can run. A rank that has stopped - it
// does not wait for others, and neither it nor its backend uses a processor - can neither be asked nor ended: the task fails, and there will
// be no other. So it is where all wait for each other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ops/backend.h"
#include "ops/collective.h"

namespace parley {

class RankThreads {
 public:
  // stopped_after_ms: a rank that has not moved for so long has stopped.
  RankThreads(int64_t num_ranks, int64_t stopped_after_ms);

  // Joins the threads; one that has stopped is left where it is, with the task that it was given.
  ~RankThreads();
  RankThreads(const RankThreads&) = delete;
  RankThreads& operator=(const RankThreads&) = delete;

  // Watches the rank from now on: with what it waits for others, and with what it computes. Not before: to load weights it waits for a
  // disk. Between two tasks.
  void watch(int64_t rank, Collective* collective, const Backend* backend);

  // Runs task(rank) on every rank's thread and `meanwhile` on this one, and returns when none runs any more. Throws what `meanwhile` threw,
  // or the first rank that failed, or Error that a rank has stopped, which then every call throws.
  void run(std::function<void(int64_t)> task, const std::function<void()>& meanwhile = [] {});

  // Why there can be no more tasks; empty: there can.
  std::string stopped() const;

 private:
  struct State;
  static void work(const std::shared_ptr<State>& state, int64_t rank);
  void look_at_ranks();
  void end();

  const std::shared_ptr<State> state_;  // a thread that has stopped keeps it
  std::vector<std::thread> threads_;
};

}  // namespace parley

#include "model/rank_threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>

#include "base/check.h"
#include "base/spin.h"
#include "base/thread_time.h"

namespace parley {
namespace {

// A rank has stopped when it was looked at so many times and had not moved. Looks are counted and not time: where the whole process was
// halted for a while, or the machine slept, no rank has stopped.
constexpr int64_t kLooks = 8;

}  // namespace

struct RankThreads::State {
  struct Rank {
    Collective* collective = nullptr;  // null: not watched
    const Backend* backend = nullptr;
    bool running = false;
    bool stopped = false;
    int64_t progress = 0;  // when it was looked at
    int64_t looks_idle = 0;
  };

  State(int64_t num_ranks, int64_t stopped_after_ms)
      : look_every(std::max<int64_t>(stopped_after_ms / kLooks, 1)), ranks(static_cast<size_t>(num_ranks)) {}

  const std::chrono::milliseconds look_every;
  mutable std::mutex mutex;  // guards what follows; task is only written while no rank runs
  std::condition_variable wake;
  std::condition_variable done;
  std::vector<Rank> ranks;
  std::function<void(int64_t)> task;
  int64_t num_running = 0;
  int64_t num_stopped = 0;
  std::exception_ptr failure;  // the first: the others are its consequences
  std::string stopped;
  int64_t looks_still = 0;  // that found no rank to have moved
  // Read without the mutex, also by a rank that has stopped and goes on.
  std::atomic<uint32_t> round{0};
  std::atomic<bool> ending{false};

  void stop(Rank& rank, const std::string& why) {
    rank.stopped = true;
    ++num_stopped;
    if (stopped.empty()) stopped = why;
    abort(stopped);
  }

  void abort(const std::string& why) {
    for (const Rank& rank : ranks) {
      if (rank.collective != nullptr) return rank.collective->abort(why);
    }
  }
};

RankThreads::RankThreads(int64_t num_ranks, int64_t stopped_after_ms) : state_(std::make_shared<State>(num_ranks, stopped_after_ms)) {
  try {
    for (int64_t rank = 0; rank < num_ranks; ++rank) threads_.emplace_back([state = state_, rank] { work(state, rank); });
  } catch (...) {
    end();
    fail("cannot start a thread for each of ", num_ranks, " ranks");
  }
}

RankThreads::~RankThreads() { end(); }

void RankThreads::end() {
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->ending = true;
    state_->round.fetch_add(1);
    for (size_t rank = 0; rank < threads_.size(); ++rank) {
      if (state_->ranks[rank].stopped) threads_[rank].detach();
    }
  }
  state_->wake.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void RankThreads::watch(int64_t rank, Collective* collective, const Backend* backend) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->ranks[static_cast<size_t>(rank)].collective = collective;
  state_->ranks[static_cast<size_t>(rank)].backend = backend;
}

std::string RankThreads::stopped() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->stopped;
}

void RankThreads::run(std::function<void(int64_t)> task, const std::function<void()>& meanwhile) {
  State& state = *state_;
  std::unique_lock<std::mutex> lock(state.mutex);
  check(state.stopped.empty(), state.stopped);
  state.task = std::move(task);
  state.failure = nullptr;
  state.looks_still = 0;
  state.num_running = static_cast<int64_t>(state.ranks.size());
  for (State::Rank& rank : state.ranks) {
    rank.running = true;
    rank.looks_idle = 0;
  }
  state.round.fetch_add(1);
  state.wake.notify_all();
  lock.unlock();
  std::exception_ptr failure;
  try {
    meanwhile();
  } catch (...) {
    failure = std::current_exception();
  }
  lock.lock();
  while (!state.done.wait_for(lock, state.look_every, [&state] { return state.num_running == state.num_stopped; })) look_at_ranks();
  check(state.stopped.empty(), state.stopped);
  if (state.failure == nullptr) {
    if (failure != nullptr) std::rethrow_exception(failure);
    return;
  }
  if (state.ranks[0].collective != nullptr) state.ranks[0].collective->reset();
  std::rethrow_exception(state.failure);
}

// With the mutex.
void RankThreads::look_at_ranks() {
  State& state = *state_;
  const std::string number = std::to_string(state.ranks.size());
  const std::string time = std::to_string(kLooks * state.look_every.count()) + " ms";
  bool anything = false;  // has happened since the last look
  for (size_t i = 0; i < state.ranks.size(); ++i) {
    State::Rank& rank = state.ranks[i];
    if (!rank.running || rank.stopped || rank.collective == nullptr) continue;
    const std::string problem = rank.collective->problem();
    if (!problem.empty() && state.failure == nullptr) {
      state.failure = std::make_exception_ptr(Error(problem));
      state.abort(problem);
    }
    const int64_t progress = thread_time_ns(threads_[i].native_handle()) + rank.backend->progress() + rank.collective->progress();
    const bool moved = progress != rank.progress;
    rank.progress = progress;
    rank.looks_idle = moved || rank.collective->waiting() ? 0 : rank.looks_idle + 1;
    anything = anything || moved;
    if (rank.looks_idle < kLooks) continue;
    state.stop(rank, "rank " + std::to_string(i) + " of " + number + " has stopped: it has not moved for " + time + " while the others waited for it");
    anything = true;  // which the others are told
  }
  // As when a GPU hangs where it meets the others.
  state.looks_still = anything ? 0 : state.looks_still + 1;
  if (state.looks_still < kLooks) return;
  for (State::Rank& rank : state.ranks) {
    if (rank.running && !rank.stopped && rank.collective != nullptr) {
      state.stop(rank, "all " + number + " ranks have stopped: they have waited for each other for " + time);
    }
  }
}

void RankThreads::work(const std::shared_ptr<State>& state, int64_t index) {
  State::Rank& rank = state->ranks[static_cast<size_t>(index)];
  uint32_t seen = 0;
  for (;;) {
    const auto moved_on = [&] { return state->round.load() != seen; };
    // Between two tasks the thread that gives them needs a core: rank 0 leaves it its own.
    if (index == 0 || !spin(moved_on)) {
      std::unique_lock<std::mutex> lock(state->mutex);
      state->wake.wait(lock, moved_on);
    }
    ++seen;
    if (state->ending) return;
    std::exception_ptr failure;
    std::string why;
    try {
      state->task(index);
    } catch (const std::exception& error) {
      failure = std::current_exception();
      why = error.what();
    }
    if (failure != nullptr) state->abort(why);
    const std::lock_guard<std::mutex> lock(state->mutex);
    if (state->failure == nullptr) state->failure = failure;
    rank.running = false;
    --state->num_running;
    if (rank.stopped) {
      rank.stopped = false;
      --state->num_stopped;
    }
    if (state->num_running == state->num_stopped) state->done.notify_one();
  }
}

}  // namespace parley

#include "cpu/thread_pool.h"

#include "base/check.h"
#include "base/spin.h"
#include "base/thread_time.h"

namespace parley {

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads) {
  check(num_threads >= 1 && num_threads <= 1024, "number of threads out of range: ", num_threads);
  threads_.reserve(static_cast<size_t>(num_threads - 1));
  try {
    for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this, i] { work(i); });
  } catch (...) {
    stopping_ = true;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      round_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    fail("cannot start ", num_threads, " threads");
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    round_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

// A thread that goes to sleep first says so and then looks again; the other side first moves on and then looks whether somebody said
// so. All four are sequentially consistent, so one of the two sees the other.
void ThreadPool::start(Call call, const void* context) {
  call_ = call;
  context_ = context;
  num_running_.store(num_threads_ - 1, std::memory_order_relaxed);
  round_.fetch_add(1);
  if (num_asleep_.load() > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }

  call(context, 0);

  const auto done = [this] { return num_running_.load() == 0; };
  if (spin(done)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  caller_asleep_.store(true);
  done_.wait(lock, done);
  caller_asleep_.store(false);
}

int64_t ThreadPool::time_ns() const {
  int64_t sum = 0;
  for (std::thread& thread : threads_) sum += thread_time_ns(thread.native_handle());
  return sum;
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  for (;;) {
    const auto moved_on = [this, seen] { return round_.load() != seen; };
    if (!spin(moved_on)) {
      std::unique_lock<std::mutex> lock(mutex_);
      num_asleep_.fetch_add(1);
      wake_.wait(lock, moved_on);
      num_asleep_.fetch_sub(1);
    }
    ++seen;
    if (stopping_) return;
    call_(context_, thread);
    if (num_running_.fetch_sub(1) == 1 && caller_asleep_.load()) {
      std::lock_guard<std::mutex> lock(mutex_);
      done_.notify_one();
    }
  }
}

}  // namespace parley

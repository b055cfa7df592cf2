// Threads that run one function together, again and again, with little delay between.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace parley {

// run() is called by one thread at a time, and that thread takes part as thread 0. Between calls the others spin for some tens of
// microseconds, because the next op of a forward pass comes soon, then sleep, so that an idle server needs no CPU.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Nanoseconds of the processor that all threads but the caller's have used. Any thread.
  int64_t time_ns() const;

  // Calls function(thread) for every thread in 0..num_threads() - 1 and returns when all are done. The function must not throw.
  template <class Function>
  void run(const Function& function) {
    if (num_threads_ == 1) {
      function(0);
    } else {
      start([](const void* context, int thread) { (*static_cast<const Function*>(context))(thread); }, &function);
    }
  }

 private:
  using Call = void (*)(const void* context, int thread);

  void start(Call call, const void* context);
  void work(int thread);

  const int num_threads_;
  Call call_ = nullptr;            // written before round_ moves on
  const void* context_ = nullptr;  // the same
  bool stopping_ = false;          // the same

  // On lines of their own: workers spin on the first, the caller on the second.
  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int> num_running_{0};
  alignas(64) std::atomic<int> num_asleep_{0};  // workers in wake_
  std::atomic<bool> caller_asleep_{false};

  std::mutex mutex_;
  std::condition_variable wake_;  // round_ moved on
  std::condition_variable done_;  // num_running_ is 0
  mutable std::vector<std::thread> threads_;  // native_handle() wants it so
};

}  // namespace parley

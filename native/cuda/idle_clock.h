// How long the GPU stands still between two steps: Backend::take_idle_us.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "cuda/status.h"

namespace parley {
namespace cuda {

// Times are the GPU's own: of an event behind the last work of a step, and of one before the first work of the next.
class IdleClock {
 public:
  explicit IdleClock(cudaStream_t stream) : stream_(stream) {}
  ~IdleClock() {
    for (const cudaEvent_t event : {begin_, end_, last_end_}) {
      if (event) cudaEventDestroy(event);
    }
  }
  IdleClock(const IdleClock&) = delete;
  IdleClock& operator=(const IdleClock&) = delete;

  // Before the first work of a step is started, and behind its last work. Where take() was never called they do nothing.
  void begin() {
    if (!begin_) return;
    check(cudaEventRecord(begin_, stream_), "event");
    ++begins_;
  }
  void end() {
    if (!begin_) return;
    std::swap(end_, last_end_);
    check(cudaEventRecord(end_, stream_), "event");
  }

  // When the host has waited for the end.
  void ended() {
    if (!begin_) return;
    float milliseconds = 0;
    // Where something else was begun in between, the GPU was not idle, or that had no end.
    if (begins_ == 1 && ended_ && idle_us_.size() < kMost) {
      check(cudaEventElapsedTime(&milliseconds, last_end_, begin_), "time between two steps");
      idle_us_.push_back(milliseconds * 1e3f);
    }
    begins_ = 0;
    ended_ = true;
  }

  std::vector<float> take() {
    if (!begin_) {
      for (cudaEvent_t* event : {&begin_, &end_, &last_end_}) check(cudaEventCreateWithFlags(event, cudaEventDefault), "event");
    }
    return std::exchange(idle_us_, {});
  }

 private:
  static constexpr size_t kMost = 1 << 16;

  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
  cudaEvent_t last_end_ = nullptr;
  int64_t begins_ = 0;  // since the last end
  bool ended_ = false;  // a step, ever
  std::vector<float> idle_us_;
};

}  // namespace cuda
}  // namespace parley

// How long the GPU stands still between two steps: Backend::take_idle_us.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "cuda/status.h"

namespace parley {
namespace cuda {

// Times are the GPU's own: of an event behind the last work of a step, and of one before the first work of the next. A step may begin before
// the host has waited for the end of the one before it.
class IdleClock {
 public:
  explicit IdleClock(cudaStream_t stream) : stream_(stream) {}
  ~IdleClock() {
    for (const Step& step : steps_) {
      if (step.begin) cudaEventDestroy(step.begin);
      if (step.end) cudaEventDestroy(step.end);
    }
  }
  IdleClock(const IdleClock&) = delete;
  IdleClock& operator=(const IdleClock&) = delete;

  // Before the first work of a step is started, and behind its last work. Where take() was never called they do nothing.
  void begin() {
    if (!measures()) return;
    is_behind_step_ = !has_begun_;
    check(cudaEventRecord(at(num_ends_).begin, stream_), "event");
    has_begun_ = true;
  }
  void end() {
    if (!measures()) return;
    Step& step = at(num_ends_);
    // Where something else was begun in between, the GPU was not idle, or that had no end.
    step.has_idle = has_begun_ && is_behind_step_ && num_ends_ > 0;
    check(cudaEventRecord(step.end, stream_), "event");
    ++num_ends_;
    has_begun_ = false;
  }

  // When the host has waited for an end: of the first step whose end it had not waited for.
  void ended() {
    if (!measures() || num_ended_ == num_ends_) return;
    const Step& step = at(num_ended_++);
    if (!step.has_idle || idle_us_.size() == kMost) return;
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, at(num_ended_ - 2).end, step.begin), "time between two steps");
    idle_us_.push_back(milliseconds * 1e3f);
  }

  // Nobody will wait for the ends that are under way.
  void forget() { num_ended_ = num_ends_; }

  // Between two steps.
  std::vector<float> take() {
    for (Step& step : steps_) {
      for (cudaEvent_t* event : {&step.begin, &step.end}) {
        if (!*event) check(cudaEventCreateWithFlags(event, cudaEventDefault), "event");
      }
    }
    return std::exchange(idle_us_, {});
  }

 private:
  static constexpr size_t kMost = 1 << 16;

  struct Step {
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    bool has_idle = false;  // between it and the step before
  };

  bool measures() const { return steps_.back().end != nullptr; }
  Step& at(int64_t step) { return steps_[static_cast<size_t>(step) % steps_.size()]; }

  cudaStream_t stream_;
  std::array<Step, 4> steps_;  // two that are under way, one before them, one to begin
  int64_t num_ends_ = 0;
  int64_t num_ended_ = 0;  // that the host has waited for
  bool has_begun_ = false;
  bool is_behind_step_ = false;
  std::vector<float> idle_us_;
};

}  // namespace cuda
}  // namespace parley

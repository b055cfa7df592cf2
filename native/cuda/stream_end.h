// Waiting for what a stream does.
#pragma once

#include <chrono>
#include <thread>

#include "base/spin.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {

// What was started in a stream until set() was called.
class StreamEnd {
 public:
  // give_up_after_ms: a wait that takes longer fails, and nothing runs any more (broken()); 0: it takes as long as it takes.
  StreamEnd(cudaStream_t stream, int64_t give_up_after_ms) : stream_(stream), give_up_after_(give_up_after_ms) {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming | cudaEventBlockingSync), "event");
  }
  ~StreamEnd() { cudaEventDestroy(event_); }
  StreamEnd(const StreamEnd&) = delete;
  StreamEnd& operator=(const StreamEnd&) = delete;

  void set(const char* what) { check(cudaEventRecord(event_, stream_), what); }

  // Returns when it is done. For as long as a step of decoding takes it asks again and again, which is how one knows soonest; then it sleeps,
  // so that a GPU that hangs is seen as a rank that has stopped (model/rank_threads.h), and takes no processor.
  void wait(const char* what) {
    const auto start = std::chrono::steady_clock::now();
    const auto lasts = [&](std::chrono::milliseconds time) { return std::chrono::steady_clock::now() - start < time; };
    cudaError_t state;
    while ((state = cudaEventQuery(event_)) == cudaErrorNotReady && lasts(std::chrono::milliseconds(20))) pause_processor();
    if (state == cudaErrorNotReady && give_up_after_.count() == 0) state = cudaEventSynchronize(event_);
    while (state == cudaErrorNotReady) {
      if (!lasts(give_up_after_)) give_up(what, give_up_after_.count());
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      state = cudaEventQuery(event_);
    }
    check(state, what);
  }

 private:
  cudaStream_t stream_;
  const std::chrono::milliseconds give_up_after_;
  cudaEvent_t event_ = nullptr;
};

}  // namespace cuda
}  // namespace parley

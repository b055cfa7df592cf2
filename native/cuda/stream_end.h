// Waiting for what a stream does.
#pragma once

#include <chrono>

#include "base/spin.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {

class StreamEnd {
 public:
  explicit StreamEnd(cudaStream_t stream) : stream_(stream) {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming | cudaEventBlockingSync), "event");
  }
  ~StreamEnd() { cudaEventDestroy(event_); }
  StreamEnd(const StreamEnd&) = delete;
  StreamEnd& operator=(const StreamEnd&) = delete;

  // Returns when all is done that was started in the stream. For as long as a step of decoding takes it asks again and again, which is how one
  // knows soonest; then it sleeps, so that a GPU that hangs is seen as a rank that has stopped (model/rank_threads.h), and takes no processor.
  void wait(const char* what) {
    check(cudaEventRecord(event_, stream_), what);
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    cudaError_t state;
    while ((state = cudaEventQuery(event_)) == cudaErrorNotReady && std::chrono::steady_clock::now() < end) pause_processor();
    if (state == cudaErrorNotReady) state = cudaEventSynchronize(event_);
    check(state, what);
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t event_ = nullptr;
};

}  // namespace cuda
}  // namespace parley

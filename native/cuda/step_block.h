// What the GPU is told anew in every step, in one copy: Backend::begin_block, plan_attention, plan_choices, send_block.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/arithmetic.h"
#include "cuda/memory.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {

// Is put together in pinned memory, of which there are two pieces, so that one can be written while the GPU still takes the other; and lies in
// one piece of the GPU's memory, always the same, because graphs of steps have its addresses.
class StepBlock {
 public:
  // A part, where the host writes it and where kernels find it.
  template <class T>
  struct Part {
    T* host;
    T* device;
  };

  explicit StepBlock(cudaStream_t stream) : stream_(stream) {
    for (Host& host : hosts_) check(cudaEventCreateWithFlags(&host.taken, cudaEventDisableTiming), "event");
  }
  ~StepBlock() {
    for (const Host& host : hosts_) {
      if (host.taken) cudaEventDestroy(host.taken);
    }
  }
  StepBlock(const StepBlock&) = delete;
  StepBlock& operator=(const StepBlock&) = delete;

  // What a part of `count` T takes.
  template <class T>
  static int64_t bytes(int64_t count) {
    return checked_mul(ceil_div(checked_mul(count, sizeof(T)), kAlignment), kAlignment);
  }

  int64_t held_bytes() const { return device_.bytes(); }

  // Room for parts of so many bytes together. Between two blocks.
  void reserve(int64_t bytes) {
    device_.reserve<char>(bytes);
    for (Host& host : hosts_) host.memory.reserve<char>(bytes);
  }

  void begin() {
    current_ ^= 1;
    check(cudaEventSynchronize(hosts_[current_].taken), "the copy of a step's lists");
    used_ = 0;
  }

  // The next part. Throws Error if there is no room.
  template <class T>
  Part<T> take(int64_t count) {
    const int64_t first = used_;
    used_ = checked_add(first, bytes<T>(count));
    check(used_ <= device_.bytes(), "a step's block has ", device_.bytes(), " bytes, ", used_, " are wanted");
    return {reinterpret_cast<T*>(hosts_[current_].memory.reserve<char>(0) + first), reinterpret_cast<T*>(device_.reserve<char>(0) + first)};
  }

  void send() {
    if (used_ == 0) return;
    Host& host = hosts_[current_];
    check(cudaMemcpyAsync(device_.reserve<char>(0), host.memory.reserve<char>(0), static_cast<size_t>(used_), cudaMemcpyHostToDevice, stream_),
          "a step's lists");
    check(cudaEventRecord(host.taken, stream_), "event");
  }

 private:
  static constexpr int64_t kAlignment = 256;

  struct Host {
    cudaEvent_t taken = nullptr;
    PinnedScratch memory;
  };

  cudaStream_t stream_;
  DeviceScratch device_;
  Host hosts_[2];
  int current_ = 0;
  int64_t used_ = 0;
};

}  // namespace cuda
}  // namespace parley

// Memory of the device, and of the host where copies to and from the device run beside the work.
#pragma once

#include <cstdint>

#include "base/arithmetic.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {

struct DeviceAllocator {
  static void* take(int64_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, static_cast<size_t>(bytes)), "memory of the GPU");
    return memory;
  }
  static void give(void* memory) noexcept { cudaFree(memory); }  // a destructor has nobody to tell that it failed
};

// Pinned: a copy from pageable memory waits for the host.
struct PinnedAllocator {
  static void* take(int64_t bytes) {
    void* memory = nullptr;
    check(cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocPortable), "pinned memory of the host");
    return memory;
  }
  static void give(void* memory) noexcept { cudaFreeHost(memory); }
};

// Memory that ops keep between calls: it grows to the largest need and then stays.
template <class Allocator>
class GrowingMemory {
 public:
  GrowingMemory() = default;
  ~GrowingMemory() { Allocator::give(data_); }
  GrowingMemory(const GrowingMemory&) = delete;
  GrowingMemory& operator=(const GrowingMemory&) = delete;

  // At least `count` numbers at a 256-byte boundary. What was there before is lost when it grows, which waits for the device. Where there is
  // no room for more, it stays as it is.
  template <class Number>
  Number* reserve(int64_t count) {
    const int64_t bytes = checked_mul(count, sizeof(Number));
    if (bytes > capacity_) {
      void* more = Allocator::take(bytes);
      release();
      data_ = more;
      capacity_ = bytes;
    }
    return static_cast<Number*>(data_);
  }

  void release() noexcept {
    Allocator::give(data_);
    data_ = nullptr;
    capacity_ = 0;
  }

  int64_t bytes() const { return capacity_; }

 private:
  void* data_ = nullptr;
  int64_t capacity_ = 0;
};

using DeviceScratch = GrowingMemory<DeviceAllocator>;
using PinnedScratch = GrowingMemory<PinnedAllocator>;

}  // namespace cuda
}  // namespace parley

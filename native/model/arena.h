// A stretch of a backend's memory, handed out front to back and freed at once.
#pragma once

#include "base/arithmetic.h"
#include "base/check.h"
#include "ops/backend.h"

namespace parley {

class Arena {
 public:
  // Throws Error if the device has no room. The backend outlives the arena.
  Arena(Backend& backend, int64_t bytes) : backend_(backend), size_(bytes), data_(static_cast<char*>(backend.allocate(bytes))) {}
  ~Arena() { backend_.release(data_, size_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // The next `bytes`.
  void* take(int64_t bytes) {
    const int64_t start = ceil_div(used_, kAlignment) * kAlignment;
    check(checked_add(start, bytes) <= size_, "arena of ", size_, " bytes is full: ", used_, " used, ", bytes, " wanted");
    used_ = start + bytes;
    return data_ + start;
  }

  // What each part begins at a multiple of, and may take besides its own bytes.
  static constexpr int64_t kAlignment = Backend::kAlignment;

 private:
  Backend& backend_;
  int64_t size_;
  int64_t used_ = 0;
  char* data_;
};

}  // namespace parley

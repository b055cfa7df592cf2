// Memory that ops keep between calls: it grows to the largest need and then stays. Backend::reserve_scratch takes that need in advance.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "base/arithmetic.h"
#include "base/check.h"

namespace parley {

class Scratch {
 public:
  // At least `count` numbers at a 64-byte boundary. What was there before is lost when it grows. Throws Error if there is no room.
  template <class Number>
  Number* reserve(int64_t count) {
    const int64_t bytes = checked_mul(count, sizeof(Number));
    if (bytes > capacity_) {
      data_.reset();
      capacity_ = 0;
      data_.reset(::operator new(static_cast<size_t>(bytes), kAlignment, std::nothrow));
      check(data_ != nullptr, "cannot reserve ", bytes, " bytes of memory for the ops' own use");
      capacity_ = bytes;
    }
    return static_cast<Number*>(data_.get());
  }

  int64_t bytes() const { return capacity_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* data) const { ::operator delete(data, kAlignment); }
  };

  std::unique_ptr<void, Free> data_;
  int64_t capacity_ = 0;
};

}  // namespace parley

// Work that is shared out evenly between threads, of which each takes from the others' shares when its own is done: a core of a machine
// that others use too is for some milliseconds half as fast as the next.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace parley {

class ThreadShares {
 public:
  explicit ThreadShares(int num_threads) : shares_(static_cast<size_t>(num_threads)) {}

  // [0, count) for the threads 0..num_threads - 1. Before they begin.
  void share_out(int64_t count, int64_t num_threads) {
    num_threads_ = num_threads;
    for (int64_t thread = 0; thread < num_threads; ++thread) {
      Share& share = shares_[static_cast<size_t>(thread)];
      share.next.store(count / num_threads * thread + count % num_threads * thread / num_threads, std::memory_order_relaxed);
      share.end = count / num_threads * (thread + 1) + count % num_threads * (thread + 1) / num_threads;
    }
  }

  // function(begin, end) for pieces of at most `piece`, one after the other, until nothing is left in any share.
  template <class Function>
  void each_piece(int64_t thread, int64_t piece, const Function& function) {
    for (int64_t i = 0; i < num_threads_; ++i) {
      Share& share = shares_[static_cast<size_t>((thread + i) % num_threads_)];
      for (;;) {
        const int64_t begin = share.next.fetch_add(piece, std::memory_order_relaxed);
        if (begin >= share.end) break;
        function(begin, std::min(begin + piece, share.end));
      }
    }
  }

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  std::vector<Share> shares_;
  int64_t num_threads_ = 0;
};

}  // namespace parley

#include "ops/shared_collective.h"

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "base/check.h"
#include "base/spin.h"

namespace parley {

// A barrier, and beside it what each rank shows the others. Who waits spins for some tens of microseconds, for ranks have equal work, and
// then sleeps.
class MeetingPlace {
 public:
  explicit MeetingPlace(int64_t num_ranks) : parts(static_cast<size_t>(num_ranks)), num_ranks_(num_ranks) {}

  // Written by each rank before a wait(), read by all behind it.
  std::vector<Matrix<const float>> parts;

  // Returns when all ranks have come. A thread that goes to sleep first says so and then looks again; the last one first moves on and
  // then looks whether somebody said so. All four are sequentially consistent, so one of the two sees the other.
  void wait() {
    const uint32_t seen = round_.load();
    if (aborted_.load()) throw_reason();
    if (num_arrived_.fetch_add(1) + 1 == num_ranks_) {
      num_arrived_.store(0);
      round_.fetch_add(1);
      wake_sleepers();
      return;
    }
    const auto over = [&] { return round_.load() != seen || aborted_.load(); };
    if (!spin(over)) {
      std::unique_lock<std::mutex> lock(mutex_);
      num_asleep_.fetch_add(1);
      wake_.wait(lock, over);
      num_asleep_.fetch_sub(1);
    }
    if (round_.load() == seen) throw_reason();
  }

  void abort(const std::string& why) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (aborted_.load()) return;  // the first reason is the cause of the others
      reason_ = why;
      aborted_.store(true);
    }
    wake_sleepers();
  }

  void reset() {
    num_arrived_.store(0);
    aborted_.store(false);
  }

 private:
  void wake_sleepers() {
    if (num_asleep_.load() == 0) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }

  [[noreturn]] void throw_reason() {
    const std::lock_guard<std::mutex> lock(mutex_);
    throw Error(reason_);
  }

  const int64_t num_ranks_;
  // On lines of their own: waiting ranks spin on the first, arriving ones write the second.
  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int64_t> num_arrived_{0};
  alignas(64) std::atomic<int64_t> num_asleep_{0};
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string reason_;  // guarded by mutex_
};

namespace {

class SharedCollective final : public Collective {
 public:
  SharedCollective(std::shared_ptr<MeetingPlace> place, int64_t rank, Backend& backend)
      : place_(std::move(place)), rank_(static_cast<size_t>(rank)), backend_(backend) {}

  void all_reduce(Matrix<float> out, Matrix<const float> part, Epilogue epilogue) override {
    show(part);
    backend_.sum(out, {place_->parts.data(), static_cast<int64_t>(place_->parts.size())}, epilogue);
    wait();
  }

  void gather(Matrix<float> out, Matrix<const float> part, Span<const Range> columns, int64_t first_row) override {
    show(part);
    for (int64_t r = 0; r < columns.size; ++r) {
      const Matrix<const float>& theirs = place_->parts[static_cast<size_t>(r)];
      const Matrix<const float> rows(theirs.data + first_row * theirs.stride, out.rows, theirs.cols, theirs.stride);
      backend_.sum({out.data + columns[r].first, out.rows, columns[r].count, out.stride}, {&rows, 1}, Epilogue::store);
    }
    wait();
  }

  bool waiting() const override { return waiting_.load(); }
  void abort(const std::string& why) override { place_->abort(why); }
  void reset() override { place_->reset(); }

 private:
  // Behind it, all ranks' parts are there.
  void show(Matrix<const float> part) {
    place_->parts[rank_] = part;
    wait();
  }

  void wait() {
    struct Waiting {
      explicit Waiting(std::atomic<bool>& flag) : flag(flag) { flag.store(true); }
      ~Waiting() { flag.store(false); }
      std::atomic<bool>& flag;
    } waiting(waiting_);
    backend_.wait();  // what it shows is there, and what it was shown is read
    place_->wait();
  }

  const std::shared_ptr<MeetingPlace> place_;
  const size_t rank_;
  Backend& backend_;
  std::atomic<bool> waiting_{false};
};

}  // namespace

std::shared_ptr<MeetingPlace> make_meeting_place(int64_t num_ranks) { return std::make_shared<MeetingPlace>(num_ranks); }

std::unique_ptr<Collective> make_shared_collective(std::shared_ptr<MeetingPlace> place, int64_t rank, Backend& backend) {
  return std::make_unique<SharedCollective>(std::move(place), rank, backend);
}

}  // namespace parley

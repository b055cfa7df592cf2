#include "ops/shared_collective.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "base/check.h"
#include "base/spin.h"
#include "ops/backend.h"

namespace parley {
namespace {

// A barrier, and beside it what each rank shows the others. Who waits spins for some tens of microseconds, for ranks have equal work, and
// then sleeps.
class Barrier {
 public:
  explicit Barrier(int64_t num_ranks)
      : parts(kMaxSummands, std::vector<Matrix<const float>>(static_cast<size_t>(num_ranks))), marks(static_cast<size_t>(2 * num_ranks)), num_ranks_(num_ranks) {}

  // Written by each rank before a wait(), read by all behind it.
  std::vector<std::vector<Matrix<const float>>> parts;  // [summands, ranks]
  std::vector<void*> marks;  // [2, ranks]: of one meeting and of the next, for a rank may come there while others still read

  // The number of the meeting that is next, the same for all until they have come to it.
  uint32_t round() const { return round_.load(); }

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

class SharedCollective final : public Collective {
 public:
  SharedCollective(std::shared_ptr<Barrier> barrier, int64_t rank, Backend& backend)
      : barrier_(std::move(barrier)), rank_(static_cast<size_t>(rank)), backend_(backend) {}

  void all_reduce(Matrix<float> out, Span<const Summand> summands, Epilogue epilogue, Span<const RowNorm> norms) override {
    for (int64_t i = 0; i < summands.size; ++i) show(i, summands[i].part);
    meet();
    for (int64_t i = 0; i < summands.size; ++i) {
      const auto& parts = barrier_->parts[static_cast<size_t>(i)];
      backend_.sum(out, {parts.data(), static_cast<int64_t>(parts.size())}, summands[i].bias, i == 0 ? epilogue : Epilogue::accumulate);
    }
    meet();
    backend_.normalise(out, norms);
  }

  void gather(Matrix<float> out, Matrix<const float> part, Span<const Range> columns, int64_t first_row) override {
    show(0, part);
    meet();
    for (int64_t r = 0; r < columns.size; ++r) {
      const Matrix<const float>& theirs = barrier_->parts[0][static_cast<size_t>(r)];
      const Matrix<const float> rows(theirs.data + first_row * theirs.stride, out.rows, theirs.cols, theirs.stride);
      backend_.sum({out.data + columns[r].first, out.rows, columns[r].count, out.stride}, {&rows, 1}, {}, Epilogue::store);
    }
    meet();
  }

  RankMeeting meeting() const override { return RankMeeting::threads; }
  bool waiting() const override { return waiting_.load(); }
  void abort(const std::string& why) override { barrier_->abort(why); }
  void reset() override { barrier_->reset(); }

 private:
  void show(int64_t summand, Matrix<const float> part) { barrier_->parts[static_cast<size_t>(summand)][rank_] = part; }

  // Behind it, what all ranks have done so far is done: at once where ops are done when they return; elsewhere for all later ops, while
  // their threads meet only to say what these have to wait for.
  void meet() {
    struct Waiting {
      explicit Waiting(std::atomic<bool>& flag) : flag(flag) { flag.store(true); }
      ~Waiting() { flag.store(false); }
      std::atomic<bool>& flag;
    } waiting(waiting_);
    const size_t num_ranks = barrier_->parts[0].size();
    void** marks = &barrier_->marks[barrier_->round() % 2 * num_ranks];
    marks[rank_] = backend_.mark();
    barrier_->wait();
    for (size_t r = 0; r < num_ranks; ++r) {
      if (r != rank_) backend_.follow(marks[r]);
    }
  }

  const std::shared_ptr<Barrier> barrier_;
  const size_t rank_;
  Backend& backend_;
  std::atomic<bool> waiting_{false};
};

class SharedPlace final : public MeetingPlace {
 public:
  explicit SharedPlace(int64_t num_ranks) : barrier_(std::make_shared<Barrier>(num_ranks)) {}
  std::unique_ptr<Collective> join(int64_t rank, Backend& backend) override {
    return std::make_unique<SharedCollective>(barrier_, rank, backend);
  }

 private:
  const std::shared_ptr<Barrier> barrier_;
};

}  // namespace

std::unique_ptr<MeetingPlace> make_shared_place(int64_t num_ranks) { return std::make_unique<SharedPlace>(num_ranks); }

}  // namespace parley

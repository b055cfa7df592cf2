#include "cpu/calibrate.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "base/check.h"
#include "cpu/isa.h"
#include "cpu/kernels/kernels.h"
#include "cpu/thread_pool.h"

namespace parley {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr int64_t kHugePage = 2 << 20;

struct Free {
  void operator()(void* data) const { std::free(data); }
};

// A thread's results, on lines of their own.
struct alignas(64) Result {
  float numbers[4] = {0.999f, 0.001f, 0, 0};
  int64_t operations = 0;
};

}  // namespace

double measure_read_bandwidth(int num_threads, int64_t bytes, double seconds) {
  check(bytes >= kHugePage && bytes <= (int64_t{1} << 40), "size of the buffer out of range: ", bytes);
  const Kernels& kernels = kernels_for(Isa::auto_);
  ThreadPool pool(num_threads);
  bytes = bytes / kHugePage * kHugePage;
  std::unique_ptr<void, Free> buffer(std::aligned_alloc(kHugePage, static_cast<size_t>(bytes)));
  check(buffer != nullptr, "no memory for a buffer of ", bytes, " bytes");
#if defined(__linux__)
  madvise(buffer.get(), static_cast<size_t>(bytes), MADV_HUGEPAGE);  // if there are none, small pages are what the engine gets too
#endif
  float* data = static_cast<float*>(buffer.get());
  const int64_t steps = bytes / static_cast<int64_t>(sizeof(float)) / kReadStep;
  std::vector<Result> results(static_cast<size_t>(num_threads));
  const auto share = [&](int thread) { return steps * thread / num_threads * kReadStep; };
  pool.run([&](int thread) { std::fill(data + share(thread), data + share(thread + 1), 1.0f); });
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto pass = Clock::now();
    pool.run([&](int thread) {
      results[static_cast<size_t>(thread)].numbers[2] = kernels.read_sum(data + share(thread), share(thread + 1) - share(thread));
    });
    best = std::max(best, static_cast<double>(steps * kReadStep) * sizeof(float) / seconds_since(pass) * 1e-9);
  } while (seconds_since(start) < seconds);
  return best;
}

double measure_fma_rate(Isa isa, int num_threads, double seconds) {
  constexpr int64_t kIterations = 200000;  // a few milliseconds
  const Kernels& kernels = kernels_for(isa);
  ThreadPool pool(num_threads);
  std::vector<Result> results(static_cast<size_t>(num_threads));
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto pass = Clock::now();
    pool.run([&](int thread) {
      Result& result = results[static_cast<size_t>(thread)];
      result.operations = kernels.fma_loop(kIterations, result.numbers);
    });
    int64_t operations = 0;
    for (const Result& result : results) operations += result.operations;
    best = std::max(best, static_cast<double>(operations) / seconds_since(pass) * 1e-9);
  } while (seconds_since(start) < seconds);
  return best;
}

}  // namespace parley

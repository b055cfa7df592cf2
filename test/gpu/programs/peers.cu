// Collectives of ranks on GPUs of their own: sums and rows against the host's, in every way that a message can be cut, again and again.
#include <dlfcn.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "cuda/cuda_backend.h"
#include "cuda/meeting_place.h"
#include "cuda/peer_collective.h"
#include "ops/backend.h"
#include "weights.h"

namespace {

using namespace parley;
using namespace parley::cuda;

// A matrix in a rank's memory, with a gap of its own behind every row.
struct Rows {
  Rows(Backend& backend, int64_t rows, int64_t cols, int64_t gap) : backend(backend), rows(rows), cols(cols), stride(cols + gap) {
    numbers = normals(rows * stride);
    data = static_cast<float*>(backend.allocate(rows * stride * 4));
    upload();
  }
  ~Rows() { backend.release(data, rows * stride * 4); }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  Matrix<float> view() const { return {data, rows, cols, stride}; }
  float at(int64_t row, int64_t col) const { return numbers[static_cast<size_t>(row * stride + col)]; }
  void set(int64_t row, int64_t col, float number) { numbers[static_cast<size_t>(row * stride + col)] = number; }
  void upload() { backend.upload(data, numbers.data(), rows * stride * 4); }
  std::vector<float> download() const {
    std::vector<float> now(numbers.size());
    backend.download(now.data(), data, rows * stride * 4);
    return now;
  }
  bool holds() const { return same(download(), numbers.data()); }

  Backend& backend;
  int64_t rows, cols, stride;
  float* data;
  std::vector<float> numbers;  // that should be there
};

// The same numbers to be, rounded to float16.
struct RoundedRows {
  explicit RoundedRows(Backend& backend, int64_t rows, int64_t cols) : backend(backend), rows(rows), cols(cols), data(backend.allocate(bytes())) {
    const std::vector<char> ones(static_cast<size_t>(bytes()), '\xff');
    backend.upload(data, ones.data(), bytes());
  }
  ~RoundedRows() { backend.release(data, bytes()); }
  RoundedRows(const RoundedRows&) = delete;
  RoundedRows& operator=(const RoundedRows&) = delete;

  int64_t bytes() const { return rows * cols * 2; }
  Output view() const { return {data, DType::float16, rows, cols}; }
  // numbers: `stride` from row to row
  bool holds(const std::vector<float>& numbers, int64_t stride) const {
    std::vector<uint16_t> now(static_cast<size_t>(rows * cols));
    backend.download(now.data(), data, bytes());
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = 0; col < cols; ++col) {
        if (now[static_cast<size_t>(row * cols + col)] != float_to_fp16(numbers[static_cast<size_t>(row * stride + col)])) return false;
      }
    }
    return true;
  }

  Backend& backend;
  int64_t rows, cols;
  void* data;
};

struct Ranks {
  Ranks(int count, Exchange exchange, bool with_nccl = false) {
    std::vector<int> devices;
    for (int rank = 0; rank < count; ++rank) devices.push_back(rank);
    make_meeting_place({devices.data(), count}, true);  // lets them read each other's memory
    const auto place = make_peer_place({devices.data(), count}, exchange, with_nccl ? Nccl::open({devices.data(), count}) : nullptr);
    for (int rank = 0; rank < count; ++rank) {
      backends.push_back(make_cuda_backend(rank, true, 0));
      collectives.push_back(place->join(rank, *backends.back()));
    }
  }
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<std::unique_ptr<Collective>> collectives;
};

// As many threads: of NCCL's calls the first one waits for those of the other ranks.
void each_rank(const Ranks& ranks, const std::function<void(size_t)>& call) {
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks.backends.size(); ++r) threads.emplace_back(call, r);
  for (std::thread& thread : threads) thread.join();
}

std::vector<std::unique_ptr<Rows>> of_each(Ranks& ranks, int64_t rows, int64_t cols, int64_t gap) {
  std::vector<std::unique_ptr<Rows>> all;
  for (const auto& backend : ranks.backends) all.push_back(std::make_unique<Rows>(*backend, rows, cols, gap));
  return all;
}

float tree(const std::vector<std::unique_ptr<Rows>>& parts, size_t first, size_t last, int64_t row, int64_t col) {
  if (last - first == 1) return parts[first]->at(row, col);
  size_t half = 1;
  while (2 * half < last - first) half *= 2;
  return tree(parts, first, first + half, row, col) + tree(parts, first + half, last, row, col);
}

void test_all_reduce(Ranks& ranks, int64_t rows, int64_t cols, int64_t gap, int num_summands, bool accumulate, bool with_bias) {
  const size_t count = ranks.backends.size();
  const auto outs = of_each(ranks, rows, cols, gap);
  const auto first = of_each(ranks, rows, cols, gap), second = of_each(ranks, rows, cols, 0);
  const auto bias = of_each(ranks, 1, cols, 0);  // each rank's own, so that it is seen whose is added
  each_rank(ranks, [&](size_t r) {
    const Span<const float> own_bias = with_bias ? Span<const float>{bias[r]->data, cols} : Span<const float>{};
    const Summand summands[] = {{first[r]->view(), own_bias}, {second[r]->view(), {}}};
    ranks.collectives[r]->all_reduce(outs[r]->view(), {summands, num_summands}, accumulate ? Epilogue::accumulate : Epilogue::store, {});
  });
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      const float a = tree(first, 0, count, row, col), b = num_summands > 1 ? tree(second, 0, count, row, col) : 0;
      for (size_t r = 0; r < count; ++r) {
        const float y = with_bias ? a + bias[r]->at(0, col) : a;
        const float total = accumulate ? outs[r]->at(row, col) + y : y;
        outs[r]->set(row, col, num_summands > 1 ? total + b : total);
      }
    }
  }
  for (size_t r = 0; r < count; ++r) {
    expect(outs[r]->holds(), "%zu ranks, %ld x %ld, gap %ld, %d summands, accumulate %d, bias %d: rank %zu has other sums", count, rows, cols,
           gap, num_summands, accumulate, with_bias, r);
  }
}

// Norms of an all-reduce's rows have the bits that the ops have.
void test_norms(Ranks& ranks, int64_t rows, int64_t cols, int64_t gap, Norm kind, bool in_place, bool with_weights) {
  const size_t count = ranks.backends.size();
  const auto outs = of_each(ranks, rows, cols, gap), parts = of_each(ranks, rows, cols, 0), normed = of_each(ranks, rows + 1, cols, gap);
  const auto weights = of_each(ranks, 2, cols, cols % 4);
  std::vector<std::unique_ptr<RoundedRows>> rounded;
  for (const auto& backend : ranks.backends) rounded.push_back(std::make_unique<RoundedRows>(*backend, rows, cols));
  const auto norm_to = [&](size_t r, Output out) {
    const auto of = [&](int64_t row) { return with_weights ? Span<const float>{weights[r]->view().row(row), cols} : Span<const float>{}; };
    return RowNorm{kind, out, of(0), kind == Norm::layer ? of(1) : Span<const float>{}, 1e-5f};
  };
  each_rank(ranks, [&](size_t r) {
    const Summand summand{parts[r]->view(), {}};
    const RowNorm norms[] = {norm_to(r, normed[r]->view()), in_place ? norm_to(r, outs[r]->view()) : norm_to(r, rounded[r]->view())};
    ranks.collectives[r]->all_reduce(outs[r]->view(), {&summand, 1}, Epilogue::accumulate, {norms, 2});
  });
  for (size_t r = 0; r < count; ++r) {
    Rows sums(*ranks.backends[r], rows, cols, gap), expected(*ranks.backends[r], rows, cols, gap);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = 0; col < cols; ++col) sums.set(row, col, outs[r]->at(row, col) + tree(parts, 0, count, row, col));
    }
    sums.upload();
    const RoundedRows expected_rounded(*ranks.backends[r], rows, cols);
    const RowNorm norms[] = {norm_to(r, expected.view()), norm_to(r, expected_rounded.view())};
    ranks.backends[r]->normalise(sums.view(), {norms, 2});
    const std::vector<float> numbers = expected.download();
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = 0; col < cols; ++col) {
        const float number = numbers[static_cast<size_t>(row * expected.stride + col)];
        normed[r]->set(row, col, number);
        outs[r]->set(row, col, in_place ? number : sums.at(row, col));
      }
    }
    expect(expected_rounded.holds(numbers, expected.stride) && (in_place || rounded[r]->holds(numbers, expected.stride)),
           "%zu ranks, norm %d of %ld x %ld: rank %zu has others rounded", count, static_cast<int>(kind), rows, cols, r);
    expect(normed[r]->holds() && outs[r]->holds(), "%zu ranks, norm %d of %ld x %ld, gap %ld, in place %d: rank %zu has other numbers", count,
           static_cast<int>(kind), rows, cols, gap, in_place, r);
  }
}

void test_gather(Ranks& ranks, int64_t rows, int64_t most_cols) {
  const size_t count = ranks.backends.size();
  std::vector<Range> columns;
  std::vector<std::unique_ptr<Rows>> parts, outs;
  std::vector<int64_t> first_rows;
  int64_t total = 0;
  for (const auto& backend : ranks.backends) {
    columns.push_back({total, 1 + below(most_cols)});
    total = columns.back().end();
    parts.push_back(std::make_unique<Rows>(*backend, rows, columns.back().count, below(3)));
  }
  for (size_t r = 0; r < count; ++r) {
    first_rows.push_back(below(rows));
    outs.push_back(std::make_unique<Rows>(*ranks.backends[r], below(rows - first_rows[r] + 1), total, below(3)));
    ranks.collectives[r]->gather(outs[r]->view(), parts[r]->view(), {columns.data(), static_cast<int64_t>(count)}, first_rows[r]);
  }
  for (size_t r = 0; r < count; ++r) {
    for (int64_t row = 0; row < outs[r]->rows; ++row) {
      for (size_t from = 0; from < count; ++from) {
        for (int64_t col = 0; col < columns[from].count; ++col) {
          outs[r]->set(row, columns[from].first + col, parts[from]->at(first_rows[r] + row, col));
        }
      }
    }
    expect(outs[r]->holds(), "%zu ranks gather %ld rows: rank %zu has others", count, rows, r);
  }
}

std::string refusal(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

// A rank that nobody comes to meet goes on when all is given up, says why at its next call, and can begin anew.
void test_abort(Ranks& ranks, int64_t rows, int64_t cols) {
  const auto outs = of_each(ranks, rows, cols, 0), parts = of_each(ranks, rows, cols, 0);
  const auto call = [&](size_t r) {
    const Summand summand{parts[r]->view(), {}};
    ranks.collectives[r]->all_reduce(outs[r]->view(), {&summand, 1}, Epilogue::store, {});
  };
  call(0);
  ranks.collectives[1]->abort("enough");
  outs[0]->download();
  const std::string reason = refusal([&] { call(0); });
  expect(reason == "enough", "the reason is told: %s", reason.c_str());
  ranks.collectives[0]->reset();
  expect(!ranks.collectives[0]->waiting(), "nobody waits after a new beginning");
}

void test_all(Ranks& ranks) {
  for (int round = 0; round < 3; ++round) {
    for (const int64_t cols : {1, 30, 64, 1000}) {
      test_all_reduce(ranks, 1 + below(5), cols, below(2) * 4, 1 + static_cast<int>(below(2)), below(2) > 0, below(2) > 0);
    }
    // The widest has more numbers than a block holds, the odd ones are not read by fours.
    for (const int64_t cols : {4, 31, 132, 1000, 8200}) {
      const Norm kind = below(2) > 0 ? Norm::rms : Norm::layer;
      test_norms(ranks, 1 + below(9), cols, below(2) * 4, kind, below(2) > 0, below(3) > 0);
    }
    test_gather(ranks, 1 + below(9), 300);
    if (round == 0) test_abort(ranks, 1, 8);
  }
  // Each adds up a part, where there are more than two.
  test_all_reduce(ranks, 35, 2000, 0, 2, true, true);
  test_norms(ranks, 70, 2000, 0, Norm::layer, false, true);
}

constexpr int64_t kLargeRows = 2200;  // of 1000 numbers: what NCCL adds up

// Two numbers have one sum, however NCCL adds up. It may not be there.
void test_nccl_of_two() {
  Ranks ranks(2, Exchange::device, true);
  if (ranks.collectives[0]->meeting() != RankMeeting::peer_memory_nccl) return;
  test_all_reduce(ranks, kLargeRows, 1000, 0, 2, true, true);
  test_norms(ranks, kLargeRows, 1000, 0, Norm::layer, true, true);
}

#ifdef PARLEY_CUDA_EMULATED
// What the emulated library counts.
int counted(const char* name) {
  void* library = dlopen("libnccl.so.2", RTLD_NOW);
  const auto count = library ? reinterpret_cast<int (*)()>(dlsym(library, name)) : nullptr;
  check(count != nullptr, "the emulated libnccl.so.2: expected beside this program");
  return count();
}

void test_emulated_nccl(int count) {
  {
    Ranks ranks(count, Exchange::device, true);
    expect(ranks.collectives[0]->meeting() == RankMeeting::peer_memory_nccl, "NCCL is found");
    expect(ranks.collectives[0]->recordable(1000) && !ranks.collectives[0]->recordable(kLargeRows * 1000), "what is small is recorded, and no more");
    const auto sums = [&](const std::function<void()>& work) {
      const int before = counted("emulated_sums");
      work();
      return counted("emulated_sums") - before;
    };
    expect(sums([&] { test_all_reduce(ranks, kLargeRows, 1000, 0, 2, true, true); }) == 2 * count, "each rank has two summands");
    expect(sums([&] { test_norms(ranks, kLargeRows, 1000, 0, Norm::layer, true, true); }) == count, "each rank has one");
    expect(sums([&] { test_all_reduce(ranks, 20, 1000, 0, 2, true, true); }) == 0, "what is small is the kernels'");
    test_abort(ranks, kLargeRows, 1000);
    test_all_reduce(ranks, kLargeRows, 1000, 0, 1, false, false);

    setenv("PARLEY_EMULATED_NCCL", "sums", 1);
    const auto outs = of_each(ranks, kLargeRows, 1000, 0), parts = of_each(ranks, kLargeRows, 1000, 0);
    const std::string expected = "NCCL: sums: remote process exited or there was a network error (emulated); NCCL_DEBUG=INFO makes it tell more";
    const Summand summand{parts[0]->view(), {}};
    const std::string refused = refusal([&] { ranks.collectives[0]->all_reduce(outs[0]->view(), {&summand, 1}, Epilogue::store, {}); });
    expect(refused == expected, "a sum that fails at once: %s", refused.c_str());
    for (const auto& collective : ranks.collectives) {
      const std::string problem = collective->problem();
      expect(problem == expected, "a sum that fails on its way: %s", problem.c_str());
    }
    ranks.collectives[1]->abort(expected);
    unsetenv("PARLEY_EMULATED_NCCL");
    ranks.collectives[0]->reset();
    expect(ranks.collectives[0]->problem().empty() && !ranks.collectives[0]->waiting(), "a new beginning");
    expect(counted("emulated_communicators") == count, "a communicator for each rank");
  }
  setenv("PARLEY_EMULATED_NCCL", "start", 1);
  const std::string reason = refusal([&] { Ranks ranks(count, Exchange::device, true); });
  expect(reason == "NCCL: start: unhandled system error (emulated); NCCL_DEBUG=INFO makes it tell more", "the reason is told: %s", reason.c_str());
  unsetenv("PARLEY_EMULATED_NCCL");
  expect(counted("emulated_communicators") == 0, "nothing is left");
}
#endif

}  // namespace

int main() {
  setenv("PARLEY_EMULATED_DEVICES", "3", 1);
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "number of GPUs");
  for (int count = 2; count <= std::min(devices, 3); ++count) {
    for (const Exchange exchange : {Exchange::device, Exchange::host}) {
      Ranks ranks(count, exchange);
      test_all(ranks);
      if (exchange == Exchange::host) continue;
      test_all_reduce(ranks, kLargeRows, 1000, 0, 2, true, false);  // in two pieces
      test_norms(ranks, kLargeRows, 2000, 0, Norm::rms, false, true);
      test_gather(ranks, 30, 200000);
    }
#ifdef PARLEY_CUDA_EMULATED
    test_emulated_nccl(count);
#endif
  }
  if (devices >= 2) test_nccl_of_two();
  if (devices < 2) std::printf("peers: one GPU here, nothing was tested\n");
  if (failures) return 1;
  std::printf("peers: ok\n");
}

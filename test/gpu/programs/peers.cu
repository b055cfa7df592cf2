// Collectives of ranks on GPUs of their own: sums and rows against the host's, in every way that a message can be cut, again and again.
#include <cstdio>
#include <memory>
#include <vector>

#include "cuda/cuda_backend.h"
#include "cuda/meeting_place.h"
#include "cuda/peer_collective.h"
#include "weights.h"

namespace {

using namespace parley;
using namespace parley::cuda;

// A matrix in a rank's memory, with a gap of its own behind every row.
struct Rows {
  Rows(Backend& backend, int64_t rows, int64_t cols, int64_t gap) : backend(backend), rows(rows), cols(cols), stride(cols + gap) {
    numbers = normals(rows * stride);
    data = static_cast<float*>(backend.allocate(rows * stride * 4));
    backend.upload(data, numbers.data(), rows * stride * 4);
  }
  ~Rows() { backend.release(data, rows * stride * 4); }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  Matrix<float> view() const { return {data, rows, cols, stride}; }
  float at(int64_t row, int64_t col) const { return numbers[static_cast<size_t>(row * stride + col)]; }
  void set(int64_t row, int64_t col, float number) { numbers[static_cast<size_t>(row * stride + col)] = number; }
  bool holds() const {
    std::vector<float> now(numbers.size());
    backend.download(now.data(), data, static_cast<int64_t>(now.size()) * 4);
    return same(now, numbers.data());
  }

  Backend& backend;
  int64_t rows, cols, stride;
  float* data;
  std::vector<float> numbers;  // that should be there
};

// One thread is enough: calls only start kernels.
struct Ranks {
  Ranks(int count, Exchange exchange) {
    std::vector<int> devices;
    for (int rank = 0; rank < count; ++rank) devices.push_back(rank);
    make_meeting_place({devices.data(), count});  // lets them read each other's memory
    const auto place = make_peer_place({devices.data(), count}, exchange);
    for (int rank = 0; rank < count; ++rank) {
      backends.push_back(make_cuda_backend(rank, true));
      collectives.push_back(place->join(rank, *backends.back()));
    }
  }
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<std::unique_ptr<Collective>> collectives;
};

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
  for (size_t r = 0; r < count; ++r) {
    const Span<const float> own_bias = with_bias ? Span<const float>{bias[r]->data, cols} : Span<const float>{};
    const Summand summands[] = {{first[r]->view(), own_bias}, {second[r]->view(), {}}};
    ranks.collectives[r]->all_reduce(outs[r]->view(), {summands, num_summands}, accumulate ? Epilogue::accumulate : Epilogue::store);
  }
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

// A rank that nobody comes to meet goes on when all is given up, says why at its next call, and can begin anew.
void test_abort(Ranks& ranks) {
  const auto outs = of_each(ranks, 1, 8, 0), parts = of_each(ranks, 1, 8, 0);
  const auto call = [&](size_t r) {
    const Summand summand{parts[r]->view(), {}};
    ranks.collectives[r]->all_reduce(outs[r]->view(), {&summand, 1}, Epilogue::store);
  };
  call(0);
  ranks.collectives[1]->abort("enough");
  std::vector<float> numbers(8);
  ranks.backends[0]->download(numbers.data(), outs[0]->data, 32);
  std::string reason;
  try {
    call(0);
  } catch (const Error& error) {
    reason = error.what();
  }
  expect(reason == "enough", "the reason is told: %s", reason.c_str());
  ranks.collectives[0]->reset();
  expect(!ranks.collectives[0]->waiting(), "nobody waits after a new beginning");
}

void test_all(Ranks& ranks) {
  for (int round = 0; round < 3; ++round) {
    for (const int64_t cols : {1, 30, 64, 1000}) {
      test_all_reduce(ranks, 1 + below(5), cols, below(2) * 4, 1 + static_cast<int>(below(2)), below(2) > 0, below(2) > 0);
    }
    test_gather(ranks, 1 + below(9), 300);
    if (round == 0) test_abort(ranks);
  }
  test_all_reduce(ranks, 35, 2000, 0, 2, true, true);  // each adds up a part, where there are more than two
}

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
      test_all_reduce(ranks, 2200, 1000, 0, 2, true, false);  // in two pieces
      test_gather(ranks, 30, 200000);
    }
  }
  if (devices < 2) std::printf("peers: one GPU here, nothing was tested\n");
  if (failures) return 1;
  std::printf("peers: ok\n");
}

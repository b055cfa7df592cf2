#include "cuda/pack.h"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "cuda/packed_weight.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBufferBytes = 16 << 20;
constexpr int64_t kBytesOfThread = 1 << 20;  // fewer are not worth a thread
constexpr int64_t kMostCopiers = 8;          // more do not read faster than a PCIe link takes it

// weight[row, col] of [num_rows, pitch] = stored[row, col] of [num_rows, cols], 0 behind the last column. Equal types keep their bits.
template <class Number, class Stored>
__global__ void __launch_bounds__(kThreads) convert(Number* weight, const Stored* stored, int64_t cols, int64_t pitch, int64_t count) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= count) return;
  const int64_t row = at / pitch;
  const int64_t col = at % pitch;
  if (col >= cols) {
    weight[at] = from_float<Number>(0);
  } else if constexpr (std::is_same_v<Number, Stored>) {
    weight[at] = stored[row * cols + col];
  } else {
    weight[at] = from_float<Number>(to_float(stored[row * cols + col]));
  }
}

// to [num_rows, row_bytes] = from, whose rows are stride bytes apart. Several threads: one alone reads the page cache more slowly than
// a GPU takes it.
void copy_rows(char* to, const char* from, int64_t num_rows, int64_t row_bytes, int64_t stride) {
  const auto copy = [=](int64_t begin, int64_t end) {
    if (stride == row_bytes) {
      std::memcpy(to + begin * row_bytes, from + begin * row_bytes, static_cast<size_t>((end - begin) * row_bytes));
    } else {
      for (int64_t r = begin; r < end; ++r) std::memcpy(to + r * row_bytes, from + r * stride, static_cast<size_t>(row_bytes));
    }
  };
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  const int64_t num_parts = std::max<int64_t>(std::min({num_rows, num_rows * row_bytes / kBytesOfThread, cores, kMostCopiers}), 1);
  std::vector<std::thread> threads;
  int64_t done = 0;
  try {
    threads.reserve(static_cast<size_t>(num_parts));
    for (int64_t part = 0; part + 1 < num_parts; ++part) {
      const int64_t end = num_rows * (part + 1) / num_parts;
      threads.emplace_back(copy, done, end);
      done = end;
    }
  } catch (const std::system_error&) {
    // No more threads to be had: this one copies what is left.
  }
  copy(done, num_rows);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

Packer::Packer(cudaStream_t stream) : stream_(stream) {
  for (cudaEvent_t& event : free_) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
}

Packer::~Packer() {
  for (cudaEvent_t event : free_) {
    if (event) cudaEventDestroy(event);
  }
}

void Packer::pack_rows(const StoredRows& run) {
  const PackedWeight& weight = run.weight;
  const int64_t row_bytes = weight.cols * dtype_bytes(run.dtype);
  const int64_t rows_at_once = std::max<int64_t>(kBufferBytes / row_bytes, 1);
  const int64_t pitch = row_pitch(weight.cols);
  for (int64_t row = 0; row < run.num_rows; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, run.num_rows - row);
    const int slot = next_;
    next_ = (next_ + 1) % kBuffers;
    check(cudaEventSynchronize(free_[slot]), "copy of weights");
    char* host = host_[slot].reserve<char>(std::max(rows_at_once * row_bytes, kBufferBytes));
    char* device = device_[slot].reserve<char>(std::max(rows_at_once * row_bytes, kBufferBytes));
    copy_rows(host, static_cast<const char*>(run.data) + row * run.stride_bytes, count, row_bytes, run.stride_bytes);
    check(cudaMemcpyAsync(device, host, static_cast<size_t>(count * row_bytes), cudaMemcpyHostToDevice, stream_), "copy of weights");
    with_type(weight.dtype, [&](auto* to_type) {
      using Number = std::remove_pointer_t<decltype(to_type)>;
      with_type(run.dtype, [&](auto* from_type) {
        using Stored = std::remove_pointer_t<decltype(from_type)>;
        const int64_t numbers = count * pitch;
        const dim3 grid(static_cast<unsigned>(ceil_div(numbers, kThreads)));
        launch(convert<Number, Stored>, grid, kThreads, 0, stream_, static_cast<Number*>(weight.data) + (run.first_row + row) * pitch,
               reinterpret_cast<const Stored*>(device), weight.cols, pitch, numbers);
      });
    });
    check(cudaEventRecord(free_[slot], stream_), "event");
  }
}

void Packer::release() {
  for (int slot = 0; slot < kBuffers; ++slot) {
    check(cudaEventSynchronize(free_[slot]), "copy of weights");
    host_[slot].release();
    device_[slot].release();
  }
}

}  // namespace cuda
}  // namespace parley

#include "cuda/pack.h"

#include <algorithm>
#include <atomic>
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
constexpr int64_t kAlignment = 16;          // of a piece in a buffer
constexpr int64_t kChunkBytes = 512 << 10;  // what a thread copies at a time
constexpr size_t kMostCopiers = 8;          // more do not read faster than a PCIe link takes it

// weight[row, col] of [num_rows, pitch] = stored[row, col] of [num_rows, cols], 0 behind the last column. Equal types keep their bits.
template <class Number, class Stored>
__global__ void __launch_bounds__(kThreads) convert(Number* weight, const Stored* stored, int64_t cols, int64_t pitch, int64_t count) {
  wait_for_previous_kernel();
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

// to [num_rows, row_bytes] = from, whose rows are stride bytes apart.
struct Chunk {
  char* to;
  const char* from;
  int64_t num_rows;
  int64_t row_bytes;
  int64_t stride;

  void copy() const {
    if (stride == row_bytes) {
      std::memcpy(to, from, static_cast<size_t>(num_rows * row_bytes));
    } else {
      for (int64_t r = 0; r < num_rows; ++r) std::memcpy(to + r * row_bytes, from + r * stride, static_cast<size_t>(row_bytes));
    }
  }
};

// Several threads: one alone reads a disk, or the page cache, more slowly than a GPU takes it.
void copy_all(const std::vector<Chunk>& chunks) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < chunks.size(); i = next++) chunks[i].copy();
  };
  const size_t cores = std::max(1u, std::thread::hardware_concurrency());
  const size_t num_copiers = std::min({chunks.size(), cores, kMostCopiers});
  std::vector<std::thread> threads;
  try {
    while (threads.size() + 1 < num_copiers) threads.emplace_back(work);
  } catch (const std::system_error&) {
    // No more threads to be had: those that there are copy what is left.
  }
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

Packer::Packer(cudaStream_t stream, int64_t buffer_bytes) : stream_(stream), buffer_bytes_(buffer_bytes) {
  for (cudaEvent_t& event : free_) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
}

Packer::~Packer() {
  for (cudaEvent_t event : free_) {
    if (event) cudaEventDestroy(event);
  }
}

void Packer::pack_rows(Span<const StoredRows> runs) {
  pieces_.clear();
  filled_ = 0;
  for (const StoredRows& run : runs) {
    const int64_t row_bytes = run.weight.cols * dtype_bytes(run.dtype);
    for (int64_t row = 0; row < run.num_rows;) {
      const int64_t room = (buffer_bytes_ - filled_) / row_bytes;
      if (room == 0 && !pieces_.empty()) {
        send();
        continue;
      }
      const int64_t count = std::min(std::max<int64_t>(room, 1), run.num_rows - row);
      pieces_.push_back({&run, row, count, filled_});
      filled_ += ceil_div(count * row_bytes, kAlignment) * kAlignment;
      row += count;
    }
  }
  if (!pieces_.empty()) send();
}

// The pieces, to where they belong.
void Packer::send() {
  const int slot = next_;
  next_ = (next_ + 1) % kBuffers;
  check(cudaEventSynchronize(free_[slot]), "copy of weights");
  const int64_t bytes = std::max(filled_, buffer_bytes_);
  char* host = host_[slot].reserve<char>(bytes);
  char* device = device_[slot].reserve<char>(bytes);
  std::vector<Chunk> chunks;
  for (const Piece& piece : pieces_) {
    const StoredRows& run = *piece.run;
    const int64_t row_bytes = run.weight.cols * dtype_bytes(run.dtype);
    const int64_t rows_at_once = std::max<int64_t>(kChunkBytes / row_bytes, 1);
    for (int64_t row = 0; row < piece.num_rows; row += rows_at_once) {
      chunks.push_back({host + piece.offset + row * row_bytes,
                        static_cast<const char*>(run.data) + (piece.first_row + row) * run.stride_bytes,
                        std::min(rows_at_once, piece.num_rows - row), row_bytes, run.stride_bytes});
    }
  }
  copy_all(chunks);
  check(cudaMemcpyAsync(device, host, static_cast<size_t>(filled_), cudaMemcpyHostToDevice, stream_), "copy of weights");
  for (const Piece& piece : pieces_) {
    const PackedWeight& weight = piece.run->weight;
    const int64_t pitch = row_pitch(weight.cols);
    const int64_t numbers = piece.num_rows * pitch;
    const dim3 grid(static_cast<unsigned>(ceil_div(numbers, kThreads)));
    with_type(weight.dtype, [&](auto* to_type) {
      using Number = std::remove_pointer_t<decltype(to_type)>;
      with_type(piece.run->dtype, [&](auto* from_type) {
        using Stored = std::remove_pointer_t<decltype(from_type)>;
        Number* to = static_cast<Number*>(weight.data) + (piece.run->first_row + piece.first_row) * pitch;
        launch(convert<Number, Stored>, grid, kThreads, 0, stream_, to, reinterpret_cast<const Stored*>(device + piece.offset), weight.cols,
               pitch, numbers);
      });
    });
  }
  check(cudaEventRecord(free_[slot], stream_), "event");
  pieces_.clear();
  filled_ = 0;
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

// Brings a checkpoint's rows into a packed weight (packed_weight.h).
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "cuda/memory.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

// Rows go through two pinned buffers, each full of rows of many runs: while one is on its way to the GPU, where a kernel converts and pads
// what came, several threads fill the other from the checkpoint's pages. So a load takes two buffers of the host's memory and as much of
// the GPU's, however large the checkpoint is.
class Packer {
 public:
  explicit Packer(cudaStream_t stream, int64_t buffer_bytes = int64_t{32} << 20);
  ~Packer();
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;

  // As Backend::pack_rows: nothing of the runs' data is read when it returns.
  void pack_rows(Span<const StoredRows> runs);

  // Gives the buffers back: weights come once.
  void release();

 private:
  static constexpr int kBuffers = 2;

  // Rows of a run that go through one buffer together.
  struct Piece {
    const StoredRows* run;
    int64_t first_row;  // of the run
    int64_t num_rows;
    int64_t offset;  // in the buffer, bytes
  };

  void send();

  cudaStream_t stream_;
  int64_t buffer_bytes_;
  cudaEvent_t free_[kBuffers] = {};  // happens when the buffer may be filled again
  PinnedScratch host_[kBuffers];
  DeviceScratch device_[kBuffers];
  int next_ = 0;
  std::vector<Piece> pieces_;  // of the next buffer
  int64_t filled_ = 0;         // bytes
};

}  // namespace cuda
}  // namespace parley

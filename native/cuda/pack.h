// Brings a checkpoint's rows into a packed weight (packed_weight.h).
#pragma once

#include <cuda_runtime.h>

#include "cuda/memory.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

// Rows go through two pinned buffers: while one is on its way to the GPU, where a kernel converts and pads what came, several threads
// fill the other from the checkpoint's pages.
class Packer {
 public:
  explicit Packer(cudaStream_t stream);
  ~Packer();
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;

  // Nothing of `run.data` is read when it returns.
  void pack_rows(const StoredRows& run);

  // Gives the buffers back: weights come once.
  void release();

 private:
  static constexpr int kBuffers = 2;

  cudaStream_t stream_;
  cudaEvent_t free_[kBuffers] = {};  // happens when the buffer may be filled again
  PinnedScratch host_[kBuffers];
  DeviceScratch device_[kBuffers];
  int next_ = 0;
};

}  // namespace cuda
}  // namespace parley

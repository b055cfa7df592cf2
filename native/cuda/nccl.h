// NCCL, opened at run time: Parley starts without it, and is built without its headers.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/tensor.h"

namespace parley {
namespace cuda {

// The communicators of all ranks, each on a GPU of its own.
class Nccl {
 public:
  // Null if this machine does not have it (libnccl.so.2, 2.14 or newer). Throws Error if it cannot be used with these devices, of each rank.
  static std::unique_ptr<Nccl> open(Span<const int> devices);
  virtual ~Nccl() = default;

  // data [count] = the sum of all ranks' data, the same bits on all, in the stream. The order of the sum depends on `count`. Returns when it is
  // started, for which all ranks must have come; where abort() ended that, nothing is.
  virtual void all_reduce(int64_t rank, float* data, int64_t count, cudaStream_t stream) = 0;

  // What went wrong since reset(), beside the ranks' calls; empty: nothing. Any thread.
  virtual std::string problem() const = 0;

  // Ends what was started and what waits to be. Any thread.
  virtual void abort() = 0;

  // Begins anew. Nothing may be running.
  virtual void reset() = 0;
};

}  // namespace cuda
}  // namespace parley

// cuBLASLt, opened at run time: Parley starts without it. Compiled in only where its headers are (pip: nvidia-cublas).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "base/tensor.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

class CublasLt {
 public:
  // Null if this build or this machine does not have it.
  static std::unique_ptr<CublasLt> open();
  virtual ~CublasLt() = default;

  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

  // out = x W^T + bias, or out += with `accumulate`; float32 sums.  out [T, rows], x [T, row_pitch(cols)] in the weight's 16-bit type,
  // bias [rows] or empty, workspace kWorkspaceBytes at a multiple of 256. False if the library has no way to do it; nothing is done then.
  virtual bool multiply(cudaStream_t stream, Matrix<float> out, const void* x, const PackedWeight& weight, Span<const float> bias,
                        bool accumulate, void* workspace) = 0;
};

}  // namespace cuda
}  // namespace parley

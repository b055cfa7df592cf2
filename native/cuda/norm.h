// LayerNorm and RMSNorm (ops/ops.def).
#pragma once

#include <cuda_runtime.h>

#include "ops/types.h"

namespace parley {
namespace cuda {

void layer_norm(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const float> weight, Span<const float> bias,
                int64_t width, float eps);
void rms_norm(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const float> weight, int64_t width, float eps);

// Backend::normalise: one kernel for all norms, where none writes the rows that the others read.
void normalise(cudaStream_t stream, Matrix<const float> x, Span<const RowNorm> norms);

}  // namespace cuda
}  // namespace parley

// Which experts a token goes to (ops/ops.def).
#pragma once

#include <cuda_runtime.h>

#include "ops/types.h"

namespace parley {
namespace cuda {

void route(cudaStream_t stream, Matrix<int32_t> experts, Matrix<float> shares, Matrix<const float> logits, bool normalise);

}  // namespace cuda
}  // namespace parley

// Ops that treat numbers one by one (ops/ops.def).
#pragma once

#include <cuda_runtime.h>

#include "ops/types.h"

namespace parley {
namespace cuda {

void embed(cudaStream_t stream, Matrix<float> out, const PackedWeight& table, Span<const int32_t> tokens, Span<const float> chosen,
           int64_t first, float scale);
void take_rows(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const int32_t> rows);
void sum(cudaStream_t stream, Matrix<float> out, Span<const Matrix<const float>> parts, Span<const float> bias, Epilogue epilogue);
void gate(cudaStream_t stream, Output out, Matrix<const float> x, Activation activation);
void scale(cudaStream_t stream, Matrix<float> x, float factor);
void softcap(cudaStream_t stream, Matrix<float> x, float cap);

// out = what `linear` makes of its sums x; not Epilogue::accumulate. out may be x.
void finish(cudaStream_t stream, Output out, Matrix<const float> x, Epilogue epilogue);

}  // namespace cuda
}  // namespace parley

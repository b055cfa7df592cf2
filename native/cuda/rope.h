// Rotary positions, and writing keys and values into their pages (ops/ops.def).
#pragma once

#include <cuda_runtime.h>

#include "ops/types.h"

namespace parley {
namespace cuda {

void rope(cudaStream_t stream, Matrix<float> qkv, Span<const int32_t> positions, Matrix<const float> cos_sin, HeadLayout heads,
          RopeLayout layout);

// A row whose slot is below 0 is written nowhere.
void write_kv(cudaStream_t stream, const KvLayer& kv, Matrix<const float> qkv, Span<const int32_t> slots, HeadLayout heads);

// Both at once, by one kernel.
void rope_and_write_kv(cudaStream_t stream, const KvLayer& kv, Matrix<float> qkv, Span<const int32_t> positions,
                       Matrix<const float> cos_sin, Span<const int32_t> slots, HeadLayout heads, RopeLayout layout);

void copy_page(cudaStream_t stream, const KvLayer& kv, int64_t from, int64_t to, HeadLayout heads);

}  // namespace cuda
}  // namespace parley

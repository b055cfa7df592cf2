// Sums and the like over a warp and over a block, in a fixed order: every thread gets the same bits.
#pragma once

#include <cstdint>

namespace parley {
namespace cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;

struct Plus {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

template <class Operation, class T>
__device__ __forceinline__ T reduce_warp(T value, Operation operation) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = operation(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// The block is whole warps, its threads along x; `scratch` is shared memory of 32 T. The next call may use the same at once.
template <class Operation, class T>
__device__ __forceinline__ T reduce_block(T value, T* scratch, T nothing, Operation operation) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int num_warps = static_cast<int>(blockDim.x) / 32;
  value = reduce_warp(value, operation);
  if (num_warps == 1) return value;
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  value = reduce_warp(lane < num_warps ? scratch[lane] : nothing, operation);
  __syncthreads();
  return value;
}

}  // namespace cuda
}  // namespace parley

// How kernels on GPUs that touch each other's memory tell each other that something is there.
#pragma once

#include <cstdint>

namespace parley {
namespace cuda {

// What this thread has seen written is there for who sees `number` at this place, in another GPU's memory too.
__device__ __forceinline__ void publish(uint32_t* at, uint32_t number) {
#ifdef PARLEY_CUDA_EMULATED
  *at = number;
#else
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(number) : "memory");
#endif
}

__device__ __forceinline__ bool has_come(const uint32_t* at, uint32_t number) {
  uint32_t seen;
#ifdef PARLEY_CUDA_EMULATED
  seen = *at;
#else
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(seen) : "l"(at) : "memory");
#endif
  return static_cast<int32_t>(seen - number) >= 0;  // they grow, and begin anew behind the last
}

// Returns when that number or a later one is there, or when *aborted, in the host's memory, is not 0.
__device__ __forceinline__ void wait_for(const uint32_t* at, uint32_t number, const volatile uint32_t* aborted) {
#ifdef PARLEY_CUDA_EMULATED
  if (!has_come(at, number) && *aborted == 0) emulator::try_later();
#else
  constexpr int kPolls = 64;  // to ask the host takes as long as some of them
  for (int polls = 1; !has_come(at, number); ++polls) {
    if (polls % kPolls == 0 && *aborted != 0) return;
  }
#endif
}

}  // namespace cuda
}  // namespace parley

// What this machine can do at best, measured: the limits that the benchmark compares the engine with.
#pragma once

#include <cstdint>

#include "contract.h"

namespace parley {

// GB/s (10^9 bytes) that `num_threads` threads read from a buffer of `bytes`, which should be much larger than the caches.
// Best of the passes that fit into `seconds`.
double measure_read_bandwidth(int num_threads, int64_t bytes, double seconds);

// GFLOP/s of float32 fused multiply-adds (two operations each) in registers. auto_: the best instruction set for float32.
double measure_fma_rate(Isa isa, int num_threads, double seconds);

}  // namespace parley

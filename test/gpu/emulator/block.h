// Runs the blocks of a kernel.
#pragma once

#include <functional>
#include <string>

#include "device.h"

namespace emulator {

// Largest shared memory of a block, static and dynamic together: on compute capability 8.6 and 8.9, and on 9.0.
constexpr int64_t most_shared(int capability) { return (capability >= 90 ? 227 : 99) * 1024; }

// Runs thread_body in every thread of every block from `next` on, one block after the other, in changing orders of threads. Returns what went
// wrong, "" if nothing did. `next` is then the block that wants to be tried later, or the number of all blocks.
std::string run_grid(dim3 grid, dim3 block, int64_t shared_bytes, const std::function<void()>& thread_body, uint64_t& next);

}  // namespace emulator

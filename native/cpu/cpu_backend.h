// The CPU's implementation of the ops: kernels for the best instruction set, shared out over a thread pool.
#pragma once

#include <memory>

#include "cpu/isa.h"
#include "ops/backend.h"

namespace parley {

// A backend with `num_threads` threads, the caller's among them; one thread calls it at a time. auto_ chooses what is best for float32.
// Throws Error if the machine lacks `isa`.
std::unique_ptr<Backend> make_cpu_backend(Isa isa, int num_threads);

}  // namespace parley

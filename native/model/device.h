// On what a rank computes.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace parley {

// The backend that options.device means: the CPU's kernels on `num_threads` threads, or the first GPU's. Throws Error if there is no
// such device, or if it cannot do what the options ask of it.
std::unique_ptr<Backend> make_backend(const EngineOptions& options, int num_threads);

}  // namespace parley

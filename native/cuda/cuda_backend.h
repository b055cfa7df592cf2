// The ops on one NVIDIA GPU.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace parley {

// One thread calls it at a time. `device` counts from 0. With `deterministic`, no row's bits depend on who else is in its call.
// Throws Error if the device cannot be had.
std::unique_ptr<Backend> make_cuda_backend(int device, bool deterministic);

}  // namespace parley

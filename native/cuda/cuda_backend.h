// The ops on one NVIDIA GPU.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "ops/backend.h"

namespace parley {

// One thread calls it at a time. `device` counts from 0. With `deterministic`, no row's bits depend on who else is in its call.
// give_up_after_ms: if the device has not done something by then it will not, and broken() says so; 0: who calls sees to that.
// Throws Error if the device cannot be had.
std::unique_ptr<Backend> make_cuda_backend(int device, bool deterministic, int64_t give_up_after_ms);

namespace cuda {

// The stream in which such a backend does all that it does.
cudaStream_t stream_of(const Backend& backend);

}  // namespace cuda

}  // namespace parley

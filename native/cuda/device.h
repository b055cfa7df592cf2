// Which GPUs there are.
#pragma once

#include "cuda/cuda_library.h"

namespace parley {
namespace cuda {

// At least 1; throws Error with the reason if there is none, or no driver.
int count_devices();

// Throws Error if there is no such device, or if it is older than compute capability 8.0.
CudaDevice describe(int device);

}  // namespace cuda
}  // namespace parley

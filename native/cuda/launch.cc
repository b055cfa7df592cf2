#include "cuda/launch.h"

namespace parley {
namespace cuda {
namespace {

// Compiled as all kernels are.
__global__ void probe() {}

}  // namespace

bool kernels_wait() {
  thread_local int known = -1;
  thread_local bool wait = false;
  int device = 0;
  check(cudaGetDevice(&device), "the GPU in use");
  if (device != known) {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, probe), "code for the GPU");
    wait = attributes.ptxVersion >= 90;
    known = device;
  }
  return wait;
}

}  // namespace cuda
}  // namespace parley

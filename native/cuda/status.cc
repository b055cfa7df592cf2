#include "cuda/status.h"

#include <mutex>

namespace parley {
namespace cuda {
namespace {

std::mutex mutex;
std::string reason;  // of broken()

void break_with(const std::string& why) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (reason.empty()) reason = why;
}

}  // namespace

std::string broken() {
  const std::lock_guard<std::mutex> lock(mutex);
  return reason;
}

void give_up(const char* what, int64_t ms) {
  const std::string message = std::string("CUDA: ") + what + ": the GPU has stopped: it has not done it in " + std::to_string(ms) + " ms";
  break_with(message);
  throw Error(message);
}

void throw_failure(cudaError_t result, const char* what) {
  const std::string message =
      std::string("CUDA: ") + what + ": " + cudaGetErrorString(result) + " (" + cudaGetErrorName(result) + ")";
  cudaGetLastError();  // else the next call that asks for it would fail for this one
  if (result == cudaErrorMemoryAllocation) throw OutOfMemory(message);
  // What is wrong with the call is wrong with it alone; what a kernel did wrong, every later call says too. One is asked that does not wait:
  // the GPU may run a kernel that waits for this rank.
  if (cudaStreamQuery(nullptr) == result) break_with(message);
  cudaGetLastError();
  throw Error(message);
}

}  // namespace cuda
}  // namespace parley

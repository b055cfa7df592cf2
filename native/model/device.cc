#include "model/device.h"

#include <utility>
#include <vector>

#include "base/check.h"
#include "cpu/cpu_backend.h"
#include "cuda/cuda_library.h"
#include "model/memory.h"
#include "ops/guarded_backend.h"
#include "ops/shared_collective.h"

namespace parley {
namespace {

int gpu_of(const EngineOptions& options, int64_t rank) {
  return static_cast<int>((options.first_gpu + rank) % cuda_library().count_devices());
}

}  // namespace

std::unique_ptr<Backend> make_backend(const EngineOptions& options, int64_t rank, int num_threads) {
  if (options.device == Device::cuda) {
    check(!options.guard_memory, "guard_memory: expected on the CPU only");
    // Several ranks are watched by their threads (rank_threads.h), each of which must be still where its GPU is.
    const int64_t give_up_after_ms = options.tensor_parallel_size > 1 ? 0 : options.gpu_stopped_after_ms;
    return cuda_library().make_backend(gpu_of(options, rank), options.deterministic, give_up_after_ms);
  }
  std::unique_ptr<Backend> backend = make_cpu_backend(isa_of(options), num_threads);
  if (options.guard_memory) backend = std::make_unique<GuardedBackend>(std::move(backend));
  return backend;
}

std::unique_ptr<MeetingPlace> make_meeting_place(const EngineOptions& options) {
  if (options.device == Device::cpu) return make_shared_place(options.tensor_parallel_size);
  std::vector<int> gpus;
  for (int64_t rank = 0; rank < options.tensor_parallel_size; ++rank) gpus.push_back(gpu_of(options, rank));
  return cuda_library().make_meeting_place({gpus.data(), static_cast<int64_t>(gpus.size())}, options.deterministic);
}

}  // namespace parley

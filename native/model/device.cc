#include "model/device.h"

#include <utility>

#include "base/check.h"
#include "cpu/cpu_backend.h"
#include "cuda/cuda_library.h"
#include "model/memory.h"
#include "ops/guarded_backend.h"

namespace parley {

std::unique_ptr<Backend> make_backend(const EngineOptions& options, int num_threads) {
  if (options.device == Device::cuda) {
    check(options.tensor_parallel_size == 1, "tensor_parallel_size: expected 1 on a GPU, several are not built yet; got ",
          options.tensor_parallel_size);
    check(!options.guard_memory, "guard_memory: expected on the CPU only");
    const CudaLibrary& library = cuda_library();
    library.count_devices();
    return library.make_backend(0, options.deterministic);
  }
  std::unique_ptr<Backend> backend = make_cpu_backend(isa_of(options), num_threads);
  if (options.guard_memory) backend = std::make_unique<GuardedBackend>(std::move(backend));
  return backend;
}

}  // namespace parley

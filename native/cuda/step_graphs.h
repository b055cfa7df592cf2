// CUDA graphs of decode steps: a step of a few hundred kernels is started with one call. Backend::padded and Backend::record.
#pragma once

#include <functional>
#include <map>
#include <tuple>

#include <cuda_runtime.h>

#include "ops/types.h"

namespace parley {
namespace cuda {

// What a step is filled up to: 1, 2, 4 or 8 rows, multiples of 8 up to 64 and of 16 above; pages up to a power of two.
StepShape padded_shape(const StepShape& shape);

class StepGraphs {
 public:
  explicit StepGraphs(cudaStream_t stream) : stream_(stream) {}
  ~StepGraphs() { forget(); }
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  // Runs `ops`, which start kernels in the stream and do nothing else with it: a shape's first time as they are, so that all that they
  // keep is there, the second time as a graph that is recorded, and from then on without calling them. held_bytes: what ops keep between
  // calls; when that changed it may lie elsewhere, and what was recorded is forgotten. Where the GPU has no room for one more graph, what is
  // not recorded runs as it is from then on.
  void run(const StepShape& shape, int64_t held_bytes, const std::function<void()>& ops);

  int64_t num_graphs() const;

 private:
  // Steps of more shapes than this come rarely; each graph takes some hundred kilobytes of the GPU's memory.
  static constexpr size_t kMostShapes = 128;

  void forget();
  cudaGraphExec_t record(const std::function<void()>& ops) const;  // null: there is no room

  cudaStream_t stream_;
  std::map<std::tuple<int64_t, int64_t, int64_t>, cudaGraphExec_t> graphs_;  // by shape; null: it came once
  int64_t held_bytes_ = 0;  // behind the last step
  bool full_ = false;
};

}  // namespace cuda
}  // namespace parley

// CUDA graphs of decode steps: a step of a few hundred kernels is started with one call. Backend::padded and Backend::record.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include <cuda_runtime.h>

#include "cuda/graph_builder.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

// What a step is filled up to: 1, 2, 4 or 8 rows, multiples of 8 up to 64 and of 16 above; pages up to a power of two.
StepShape padded_shape(const StepShape& shape);

class StepGraphs {
 public:
  StepGraphs(int device, cudaStream_t stream) : stream_(stream), builder_(device) {}

  // Runs `ops`, which start kernels in the stream and do nothing else with it. Behind a shape's second time, when all that they keep is there,
  // they are called once more, to be recorded while the GPU works; a graph is made of it beside the steps that follow, and the first one that
  // finds it ready runs it in place of `ops`. No step waits for a graph. held_bytes: what ops keep between calls; when that changed it may lie
  // elsewhere, and what was recorded is forgotten. After a graph that could not be made, no more are: steps run as they are.
  void run(const StepShape& shape, int64_t held_bytes, const std::function<void()>& ops);

  // Graphs that are ready.
  int64_t num_graphs() const;

  // Why no more graphs are made, once; then, and if they are, it is empty.
  std::string take_warning();

 private:
  // Steps of more shapes than this come rarely; each graph takes some hundred kilobytes of the GPU's memory.
  static constexpr size_t kMostShapes = 128;

  struct Known {
    int64_t times = 0;
    std::shared_ptr<StepGraph> graph;
  };

  std::shared_ptr<StepGraph> record(const std::function<void()>& ops);
  std::string failure() const { return failure_.empty() ? builder_.failure() : failure_; }

  cudaStream_t stream_;
  GraphBuilder builder_;
  std::map<std::tuple<int64_t, int64_t, int64_t>, Known> shapes_;
  int64_t held_bytes_ = 0;  // behind the last step
  std::string failure_;     // of recording
  bool warned_ = false;
};

}  // namespace cuda
}  // namespace parley

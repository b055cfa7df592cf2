#include "cuda/step_graphs.h"

#include <algorithm>

#include "base/arithmetic.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {
namespace {

int64_t power_of_two(int64_t count) {
  int64_t power = 1;
  while (power < count) power *= 2;
  return power;
}

}  // namespace

StepShape padded_shape(const StepShape& shape) {
  const auto multiple = [&](int64_t of) { return ceil_div(shape.rows, of) * of; };
  const int64_t rows = shape.rows <= 8 ? power_of_two(shape.rows) : multiple(shape.rows <= 64 ? 8 : 16);
  // Fewer pages than these are one split of attention, whose blocks come with the first key.
  constexpr int64_t kLeastPages = 16;
  const int64_t pages = std::max(power_of_two(shape.max_pages), kLeastPages);
  const int64_t encoder_pages = shape.max_encoder_pages == 0 ? 0 : std::max(power_of_two(shape.max_encoder_pages), kLeastPages);
  return {rows, pages, encoder_pages};
}

void StepGraphs::run(const StepShape& shape, int64_t held_bytes, const std::function<void()>& ops) {
  if (held_bytes != held_bytes_ || graphs_.size() >= kMostShapes) forget();
  held_bytes_ = held_bytes;
  const auto [place, first] = graphs_.emplace(std::make_tuple(shape.rows, shape.max_pages, shape.max_encoder_pages), nullptr);
  if (first) return ops();
  if (place->second == nullptr && !full_) {
    place->second = record(ops);
    full_ = place->second == nullptr;
  }
  if (place->second == nullptr) return ops();
  check(cudaGraphLaunch(place->second, stream_), "a graph of a step");
}

int64_t StepGraphs::num_graphs() const {
  return std::count_if(graphs_.begin(), graphs_.end(), [](const auto& entry) { return entry.second != nullptr; });
}

// Graphs that still run end first.
void StepGraphs::forget() {
  for (const auto& entry : graphs_) {
    if (entry.second != nullptr) cudaGraphExecDestroy(entry.second);
  }
  graphs_.clear();
}

cudaGraphExec_t StepGraphs::record(const std::function<void()>& ops) const {
  cudaGraph_t graph = nullptr;
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording of a step");
  try {
    ops();
  } catch (...) {
    // Else the stream would record for ever.
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  check(cudaStreamEndCapture(stream_, &graph), "end of the recording of a step");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t result = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(result, "a graph of a step");
  return executable;
}

}  // namespace cuda
}  // namespace parley

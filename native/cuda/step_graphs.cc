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
  if (held_bytes != held_bytes_ || shapes_.size() >= kMostShapes) shapes_.clear();
  held_bytes_ = held_bytes;
  Known& known = shapes_[{shape.rows, shape.max_pages, shape.max_encoder_pages}];
  if (known.graph != nullptr && known.graph->ready()) {
    check(cudaGraphLaunch(known.graph->executable(), stream_), "a graph of a step");
    return;
  }
  ops();
  if (++known.times == 2 && failure().empty()) known.graph = record(ops);
}

int64_t StepGraphs::num_graphs() const {
  return std::count_if(shapes_.begin(), shapes_.end(), [](const auto& entry) {
    const auto& graph = entry.second.graph;
    return graph != nullptr && graph->ready();
  });
}

std::string StepGraphs::take_warning() {
  if (warned_) return {};
  const std::string why = failure();
  if (why.empty()) return {};
  warned_ = true;
  return "steps are not recorded as graphs any more, and start more slowly: " + why;
}

// The stream may have work that goes on: what is recorded is none of it, and begins when it is launched. Null: it failed, which the step, which
// has been started already, does not notice.
std::shared_ptr<StepGraph> StepGraphs::record(const std::function<void()>& ops) {
  cudaGraph_t graph = nullptr;
  try {
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
  } catch (const std::exception& error) {
    failure_ = error.what();
    return nullptr;
  }
  return builder_.build(graph);
}

}  // namespace cuda
}  // namespace parley

#include "cuda/graph_builder.h"

#include "cuda/status.h"

namespace parley {
namespace cuda {

StepGraph::~StepGraph() {
  if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  cudaGraphDestroy(recorded_);
}

void StepGraph::build(cudaStream_t stream) {
  check(cudaGraphInstantiate(&executable_, recorded_, 0), "a graph of a step");
  check(cudaGraphUpload(executable_, stream), "a graph of a step");
  check(cudaStreamSynchronize(stream), "a graph of a step");
  ready_.store(true, std::memory_order_release);
}

GraphBuilder::~GraphBuilder() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<StepGraph> GraphBuilder::build(cudaGraph_t recorded) {
  auto graph = std::make_shared<StepGraph>(recorded);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.push_back(graph);
  }
  wake_.notify_one();
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  return graph;
}

std::string GraphBuilder::failure() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void GraphBuilder::work() {
  cudaStream_t stream = nullptr;
  for (;;) {
    std::shared_ptr<StepGraph> graph;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
      if (ending_) break;
      graph = std::move(waiting_.front());
      waiting_.pop_front();
    }
    if (graph.use_count() == 1) continue;  // forgotten
    try {
      if (stream == nullptr) {
        check(cudaSetDevice(device_), "choice of the GPU");
        check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
      }
      graph->build(stream);
    } catch (const std::exception& error) {
      const std::lock_guard<std::mutex> lock(mutex_);
      failure_ = error.what();
    }
  }
  if (stream != nullptr) cudaStreamDestroy(stream);
}

}  // namespace cuda
}  // namespace parley

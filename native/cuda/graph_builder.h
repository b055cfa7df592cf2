// Makes recorded steps ready to be launched, which takes milliseconds, beside the steps that run meanwhile.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace parley {
namespace cuda {

// A recorded step, which it owns, on its way to one that can be launched.
class StepGraph {
 public:
  explicit StepGraph(cudaGraph_t recorded) : recorded_(recorded) {}
  ~StepGraph();  // waits for nothing: what still runs of it ends first
  StepGraph(const StepGraph&) = delete;
  StepGraph& operator=(const StepGraph&) = delete;

  bool ready() const { return ready_.load(std::memory_order_acquire); }

  // Of one that is ready.
  cudaGraphExec_t executable() const { return executable_; }

  // Makes it ready, and puts it into the GPU's memory by way of `stream`, for which it waits. Throws Error.
  void build(cudaStream_t stream);

 private:
  cudaGraph_t recorded_;
  cudaGraphExec_t executable_ = nullptr;
  std::atomic<bool> ready_{false};
};

// Has a thread from the first graph on. Each of its methods may be called by one thread at a time.
class GraphBuilder {
 public:
  explicit GraphBuilder(int device) : device_(device) {}
  ~GraphBuilder();  // the graph that is being built is built first, those behind it are not
  GraphBuilder(const GraphBuilder&) = delete;
  GraphBuilder& operator=(const GraphBuilder&) = delete;

  // Takes a recorded step and gives what becomes ready at some time.
  std::shared_ptr<StepGraph> build(cudaGraph_t recorded);

  // Why a graph could not be built; empty: they all could.
  std::string failure() const;

 private:
  void work();

  const int device_;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<StepGraph>> waiting_;
  std::string failure_;
  bool ending_ = false;
};

}  // namespace cuda
}  // namespace parley

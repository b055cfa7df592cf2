// All ranks of a model. A step runs on each of them at the same time, on the rank's own thread; one rank runs on the caller's.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/rank_threads.h"
#include "model/worker.h"

namespace parley {

class RankGroup {
 public:
  // Loads the model: options.tensor_parallel_size ranks, each its part at the same time, with its part of options.num_threads. Throws Error
  // if spec, tensors and options do not fit together. progress: fraction of the weights, 0..1; one call at a time, any thread.
  RankGroup(const ModelSource& source, const EngineOptions& options, const std::function<void(double)>& progress);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  // Computes the step: chooses, scores and pools. `meanwhile` is called once on this thread, beside the ranks where the machine can do so; if
  // chains(), it may return the step that follows, to be begun at once, as Worker::run says.
  // Throws Error if a rank fails; then nothing of the step counts, nor of the one that follows. After a rank has stopped,
  // `step` and `result` must stay as they are: it may go on some day, as far as to where it meets the others.
  void run(const Step& step, StepResult& result, const std::function<StepRun()>& meanwhile = [] { return StepRun(); });

  // Whether a step can be begun before the host has the results of the one before it.
  bool chains() const { return workers_->front()->backend()->is_asynchronous(); }

  // For tests against references: computes the step and returns the logits of every row, [T, vocab].
  std::vector<float> logits(const Step& step);

  // Why no step can run any more; empty: it can.
  std::string stopped() const;

  const ModelSpec& spec() const { return spec_; }
  int64_t num_pages() const { return static_cast<int64_t>(plan_.num_pages); }
  int64_t held_scratch_bytes() const;

  // Backend::take_warning of any rank. Between two steps.
  std::string take_warning();

  // Backend::take_idle_us of the first rank. Between two steps.
  std::vector<float> take_idle_us();

  // Facts; sizes are of all ranks together, and max_model_len is the options' fitted to the pages.
  EngineInfo info() const;

 private:
  using Workers = std::vector<std::unique_ptr<Worker>>;

  void load(const ModelSource& source, const std::function<void(double)>& progress);
  void each(std::function<void(int64_t rank)> task);
  void check_agreement();

  const ModelSpec spec_;
  EngineOptions options_;
  MemoryPlan plan_;
  int64_t num_steps_ = 0;
  const Step* begun_ = nullptr;  // by all ranks, in the call before
  const std::shared_ptr<Workers> workers_;  // what a rank that has stopped still may touch
  std::unique_ptr<RankThreads> threads_;    // null with one rank
};

}  // namespace parley

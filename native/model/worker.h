// One rank: a backend, its part of the weights and of the KV pages, and the decoder. Runs steps; decides nothing.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "model/encoder.h"
#include "model/shard.h"
#include "ops/collective.h"

namespace parley {

// All that a worker is made from.
struct ModelSource {
  ModelSpec spec;
  std::vector<TensorSource> tensors;
  std::vector<std::string> files;
};

class Worker {
 public:
  // Loads the rank's part of the model. options.max_model_len and num_pages: as planned (memory.h). place: where the ranks meet; null if
  // there is one. Throws Error if spec, tensors and files do not fit together. progress: fraction of the weights, 0..1.
  Worker(const ModelSource& source, const EngineOptions& options, int64_t rank, int64_t num_pages, MeetingPlace* place,
         const std::function<void(double)>& progress);

  // Computes the step and writes the rank's rows of the result, which has the step's size: it chooses, scores and pools. Calls `meanwhile`
  // once, while the device computes if it can do so beside this thread, else first. If that returns a step, which only an asynchronous backend
  // takes and only behind a step that only chooses, it is begun before the results of this one are waited for. is_begun: so was this one, by the
  // call before, which must not have failed on any rank.
  void run(const Step& step, StepResult& result, bool is_begun, const std::function<StepRun()>& meanwhile);

  // For tests against references: computes the step and writes the rank's rows of the logits of all rows, [T, vocab].
  void logits(Step step, float* all);

  // For tests: the residual stream behind the last step's blocks, [T, hidden].
  std::vector<float> hidden() const;

  Collective* collective() const { return collective_.get(); }
  std::string take_warning() { return backend_->take_warning(); }
  std::vector<float> take_idle_us() { return backend_->take_idle_us(); }
  const Backend* backend() const { return backend_.get(); }
  const Weights& weights() const { return weights_; }
  int64_t num_threads() const { return num_threads_; }
  int64_t held_scratch_bytes() const { return backend_->held_scratch_bytes(); }

 private:
  void begin(const Step& step, StepResult& result, bool is_chained);
  void finish(const Step& step, StepResult& result);
  void copy_pages(const Step& step);
  void sample(const Step& step, StepResult& result);
  void score(const Step& step, StepResult& result);
  void pool(const Step& step);

  const RankModel model_;
  const int64_t num_threads_;
  const std::unique_ptr<Backend> backend_;
  const std::unique_ptr<Collective> collective_;  // null if the rank is the only one
  const Weights weights_;
  const KvCache kv_cache_;
  std::unique_ptr<Encoder> encoder_;  // null without encoder blocks
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace parley

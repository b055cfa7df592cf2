// One rank: a backend, the weights, the KV pages and the decoder. Runs steps; decides nothing.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "model/encoder.h"

namespace parley {

// All that a worker is made from.
struct ModelSource {
  ModelSpec spec;
  std::vector<TensorSource> tensors;
  std::vector<std::string> files;
};

class Worker {
 public:
  // Loads the model. Throws Error if spec, tensors and options do not fit together. progress: fraction of the weights, 0..1.
  Worker(const ModelSource& source, const EngineOptions& options, const std::function<void(double)>& progress);

  // Computes the step: chooses, scores and pools.
  void run(const Step& step, StepResult& result);

  // For tests against references: computes the step and returns the logits of every row, [T, vocab].
  std::vector<float> logits(Step step);

  const ModelSpec& spec() const { return spec_; }
  int64_t held_scratch_bytes() const { return backend_->held_scratch_bytes(); }
  int64_t num_pages() const { return kv_cache_->num_pages(); }

  // Facts; max_model_len is the options' fitted to the pages.
  EngineInfo info() const;

 private:
  void copy_pages(const Step& step);
  void sample(const Step& step, StepResult& result);
  void score(const Step& step, StepResult& result);
  void pool(const Step& step);

  const ModelSpec spec_;
  EngineOptions options_;
  Isa isa_;
  std::unique_ptr<Backend> backend_;
  const MemoryPlan plan_;
  Weights weights_;
  std::unique_ptr<KvCache> kv_cache_;
  std::unique_ptr<Encoder> encoder_;  // null without encoder blocks
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace parley

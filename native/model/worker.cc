#include "model/worker.h"

#include <algorithm>
#include <numeric>

#include "cpu/cpu_backend.h"
#include "model/checked.h"
#include "model/memory.h"

namespace parley {

Worker::Worker(const ModelSource& source, const EngineOptions& options, const std::function<void(double)>& progress)
    : spec_(checked(source.spec)),
      options_(options),
      isa_(isa_of(options)),
      backend_(make_cpu_backend(isa_, static_cast<int>(options.num_threads))),
      plan_(plan_memory(spec_, options, *backend_)),
      weights_(load_weights(spec_, source.tensors, source.files, options.dtype, *backend_, progress)),
      kv_cache_(std::make_unique<KvCache>(spec_, options.dtype, options.kv_cache_bytes, *backend_)) {
  options_.max_model_len = static_cast<int64_t>(plan_.max_model_len);
  const StackLimits limits = stack_limits(options_);
  backend_->reserve_scratch(scratch_limits(spec_, options_));
  decoder_ = std::make_unique<Decoder>(spec_, weights_, *kv_cache_, *backend_, options_.dtype, limits);
  if (spec_.num_encoder_layers > 0) {
    encoder_ = std::make_unique<Encoder>(spec_, weights_, *kv_cache_, *backend_, options_.dtype, limits);
  }
}

void Worker::run(const Step& step, StepResult& result) {
  copy_pages(step);
  for (const EncoderJob& job : step.encoder_jobs) encoder_->run(job);
  if (step.num_rows() > 0) decoder_->forward(step);
  sample(step, result);
  score(step, result);
  pool(step);
}

void Worker::copy_pages(const Step& step) {
  const HeadLayout heads{spec_.num_heads, spec_.num_kv_heads, spec_.head_dim, 0};
  for (const PageCopy& copy : step.page_copies) {
    for (int64_t layer = 0; layer < spec_.num_layers; ++layer) backend_->copy_page(kv_cache_->layer(layer), copy.from, copy.to, heads);
  }
}

void Worker::sample(const Step& step, StepResult& result) {
  const int64_t num_samples = static_cast<int64_t>(step.samples.size());
  const size_t size = step.samples.size();
  result.tokens.resize(size);
  result.logprobs.resize(size);
  result.ranks.resize(size);
  result.top_tokens.resize(size * kMaxLogprobs);
  result.top_logprobs.resize(size * kMaxLogprobs);
  if (num_samples == 0) return;
  const Matrix<float> logits = decoder_->unembed(decoder_->lists().sample_rows());
  backend_->sample(logits, {step.samples.data(), num_samples}, spec_.num_sampled_ids, {result.tokens.data(), num_samples},
                   {result.logprobs.data(), num_samples}, {result.ranks.data(), num_samples},
                   {result.top_tokens.data(), num_samples, kMaxLogprobs}, {result.top_logprobs.data(), num_samples, kMaxLogprobs});
}

// A few rows at a time: the logits of a whole prompt are never in memory.
void Worker::score(const Step& step, StepResult& result) {
  const size_t size = step.scores.size();
  result.score_logprobs.resize(size);
  result.score_ranks.resize(size);
  result.score_top_tokens.resize(size * kMaxLogprobs);
  result.score_top_logprobs.resize(size * kMaxLogprobs);
  const int64_t num_scores = static_cast<int64_t>(size);
  for (int64_t first = 0; first < num_scores; first += decoder_->max_logit_rows()) {
    const int64_t count = std::min(num_scores - first, decoder_->max_logit_rows());
    const Matrix<float> logits = decoder_->unembed({decoder_->lists().score_rows().data + first, count});
    backend_->score(logits, {step.scores.data() + first, count}, {result.score_logprobs.data() + first, count},
                    {result.score_ranks.data() + first, count},
                    {result.score_top_tokens.data() + first * kMaxLogprobs, count, kMaxLogprobs},
                    {result.score_top_logprobs.data() + first * kMaxLogprobs, count, kMaxLogprobs});
  }
}

// One row after the other in double precision, so that a sum has the same bits however the prompt was cut.
void Worker::pool(const Step& step) {
  const int64_t num_pooled = static_cast<int64_t>(step.pool_rows.size());
  std::vector<float> numbers;
  for (int64_t first = 0; first < num_pooled; first += decoder_->max_logit_rows()) {
    const int64_t count = std::min(num_pooled - first, decoder_->max_logit_rows());
    const Matrix<float> hidden = decoder_->final_hidden({decoder_->lists().pool_rows().data + first, count});
    numbers.resize(static_cast<size_t>(count * hidden.cols));
    backend_->download(numbers.data(), hidden.data, static_cast<int64_t>(numbers.size() * sizeof(float)));
    for (int64_t r = 0; r < count; ++r) {
      std::vector<double>& sum = *step.pool_sums[static_cast<size_t>(first + r)];
      sum.resize(static_cast<size_t>(hidden.cols));
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(numbers[static_cast<size_t>(r) * sum.size() + i]);
    }
  }
}

std::vector<float> Worker::logits(Step step) {
  for (const EncoderJob& job : step.encoder_jobs) encoder_->run(job);
  step.score_rows.resize(step.tokens.size());
  std::iota(step.score_rows.begin(), step.score_rows.end(), 0);
  decoder_->forward(step);
  std::vector<float> all(static_cast<size_t>(step.num_rows() * spec_.vocab_size));
  for (int64_t row = 0; row < step.num_rows(); ++row) {
    const Matrix<float> logits = decoder_->unembed({decoder_->lists().score_rows().data + row, 1});
    backend_->download(all.data() + row * spec_.vocab_size, logits.data, spec_.vocab_size * static_cast<int64_t>(sizeof(float)));
  }
  return all;
}

EngineInfo Worker::info() const {
  EngineInfo info;
  info.num_parameters = static_cast<double>(weights_.num_parameters);
  info.weight_bytes = static_cast<double>(weights_.num_bytes);
  info.kv_cache_bytes = plan_.num_pages * plan_.page_bytes;
  info.workspace_bytes = plan_.workspace_bytes;
  info.num_pages = plan_.num_pages;
  info.page_size = static_cast<double>(kPageSize);
  info.max_model_len = static_cast<double>(options_.max_model_len);
  info.num_threads = static_cast<double>(options_.num_threads);
  info.isa = isa_;
  info.dtype = options_.dtype;
  return info;
}

}  // namespace parley

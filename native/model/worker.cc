#include "model/worker.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "model/device.h"
#include "model/memory.h"

namespace parley {

Worker::Worker(const ModelSource& source, const EngineOptions& options, int64_t rank, int64_t num_pages, MeetingPlace* place,
               const std::function<void(double)>& progress)
    : model_(source.spec, options, rank),
      num_threads_(threads_of_rank(options, rank)),
      backend_(make_backend(options, rank, static_cast<int>(num_threads_))),
      collective_(place == nullptr ? nullptr : place->join(rank, *backend_)),
      weights_(load_weights(model_, source.tensors, source.files, options.dtype, *backend_, progress)),
      kv_cache_(model_.own, options.dtype, num_pages, *backend_) {
  const StackLimits limits = stack_limits(options);
  backend_->reserve_scratch(scratch_limits(model_, options));
  decoder_ = std::make_unique<Decoder>(model_, collective_.get(), weights_, kv_cache_, *backend_, options.dtype, limits);
  if (model_.whole.num_encoder_layers > 0) {
    encoder_ = std::make_unique<Encoder>(model_, collective_.get(), weights_, kv_cache_, *backend_, options.dtype, limits);
  }
}

void Worker::run(const Step& step, StepResult& result, bool is_begun, const std::function<StepRun()>& meanwhile) {
  if (!backend_->is_asynchronous()) {
    meanwhile();
    begin(step, result, false);
  } else {
    if (!is_begun) {
      backend_->forget_choices();  // of steps that failed
      begin(step, result, false);
    }
    const StepRun next = meanwhile();
    if (next.step != nullptr) begin(*next.step, *next.result, true);
  }
  finish(step, result);
}

// All that a step asks of the device, but for what its scores and pools are made of. is_chained: its tokens may be those that the step before
// is choosing.
void Worker::begin(const Step& step, StepResult& result, bool is_chained) {
  if (is_chained) decoder_->share_choices();
  copy_pages(step);
  for (const EncoderJob& job : step.encoder_jobs) encoder_->run(job);
  if (step.num_rows() > 0) decoder_->forward(step);
  sample(step, result);
}

void Worker::finish(const Step& step, StepResult& result) {
  if (!step.samples.empty()) backend_->wait_for_choices();
  score(step, result);
  if (model_.rank == 0) pool(step);
}

void Worker::copy_pages(const Step& step) {
  const ModelSpec& spec = model_.own;
  const HeadLayout heads{spec.num_heads, spec.num_kv_heads, spec.head_dim, 0};
  for (const PageCopy& copy : step.page_copies) {
    for (int64_t layer = 0; layer < spec.num_layers; ++layer) backend_->copy_page(kv_cache_.layer(layer), copy.from, copy.to, heads);
  }
}

void Worker::sample(const Step& step, StepResult& result) {
  if (step.samples.empty()) return;
  const Matrix<float> logits = decoder_->sample_logits();
  const auto [first, count] = decoder_->own_samples();
  backend_->sample(logits, decoder_->choices(), {step.samples.data() + first, count}, model_.whole.num_sampled_ids,
                   {result.tokens.data() + first, count}, {result.logprobs.data() + first, count}, {result.ranks.data() + first, count},
                   {result.top_tokens.data() + first * kMaxLogprobs, count, kMaxLogprobs},
                   {result.top_logprobs.data() + first * kMaxLogprobs, count, kMaxLogprobs});
}

// A few rows at a time: the logits of a whole prompt are never in memory.
void Worker::score(const Step& step, StepResult& result) {
  const int64_t num_scores = static_cast<int64_t>(step.scores.size());
  for (int64_t done = 0; done < num_scores; done += decoder_->max_logit_rows()) {
    const int64_t some = std::min(num_scores - done, decoder_->max_logit_rows());
    const Matrix<float> logits = decoder_->unembed({decoder_->lists().score_rows().data + done, some});
    const int64_t first = done + decoder_->own_rows(some).first;
    const int64_t count = decoder_->own_rows(some).count;
    if (count == 0) continue;
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

void Worker::logits(Step step, float* all) {
  for (const EncoderJob& job : step.encoder_jobs) encoder_->run(job);
  const int64_t num_rows = step.num_rows(), vocab = model_.whole.vocab_size;
  step.score_rows.resize(static_cast<size_t>(num_rows));
  std::iota(step.score_rows.begin(), step.score_rows.end(), 0);
  decoder_->forward(step);
  for (int64_t done = 0; done < num_rows; done += decoder_->max_logit_rows()) {
    const int64_t some = std::min(num_rows - done, decoder_->max_logit_rows());
    const Matrix<float> logits = decoder_->unembed({decoder_->lists().score_rows().data + done, some});
    backend_->download(all + (done + decoder_->own_rows(some).first) * vocab, logits.data,
                       logits.rows * vocab * static_cast<int64_t>(sizeof(float)));
  }
}

std::vector<float> Worker::hidden() const {
  const Matrix<const float> hidden = decoder_->hidden();
  std::vector<float> numbers(static_cast<size_t>(hidden.rows * hidden.cols));
  backend_->download(numbers.data(), hidden.data, static_cast<int64_t>(numbers.size() * sizeof(float)));
  return numbers;
}

}  // namespace parley

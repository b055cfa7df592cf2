#include "model/worker.h"

#include <algorithm>

#include "cpu/cpu_backend.h"

namespace parley {
namespace {

// Prompts are scored so many rows at a time at least, so that a server for few requests does not read the unembedding for each token.
constexpr int64_t kMinLogitRows = 32;

// What contract.def's ranges cannot say: how the fields fit together.
const ModelSpec& checked(const ModelSpec& spec) {
  check(spec.num_sampled_ids <= spec.vocab_size, "num_sampled_ids ", spec.num_sampled_ids, ": expected at most vocab_size ",
        spec.vocab_size);
  check(spec.num_heads % spec.num_kv_heads == 0, "num_kv_heads ", spec.num_kv_heads, ": expected a divisor of num_heads ",
        spec.num_heads);
  check(2 * static_cast<int64_t>(spec.rope_frequencies.size()) <= spec.head_dim, "rope_frequencies: expected at most ",
        spec.head_dim / 2, " for heads of ", spec.head_dim, " dims, got ", spec.rope_frequencies.size());
  for (const auto* others : {&spec.local_rope_frequencies, &spec.long_rope_frequencies}) {
    check(others->empty() || others->size() == spec.rope_frequencies.size(), "rope frequencies of ", others->size(),
          " pairs beside those of ", spec.rope_frequencies.size(), ": expected as many");
  }
  check(spec.alibi_slopes.empty() || static_cast<int64_t>(spec.alibi_slopes.size()) == spec.num_heads, "alibi_slopes: expected ",
        spec.num_heads, ", got ", spec.alibi_slopes.size());
  check(spec.layer_windows.empty() || static_cast<int64_t>(spec.layer_windows.size()) == spec.num_layers,
        "layer_windows: expected ", spec.num_layers, ", got ", spec.layer_windows.size());
  check(spec.topology == Topology::sequential || spec.norm_placement == NormPlacement::before,
        "a parallel topology: expected its norms before the branches");
  check(spec.decoder_start_token < spec.vocab_size, "decoder_start_token ", spec.decoder_start_token, ": expected below vocab_size ",
        spec.vocab_size);
  check(spec.relative_buckets % 4 == 0, "relative_buckets ", spec.relative_buckets, ": expected a multiple of 4");
  check(spec.relative_buckets == 0 || spec.relative_max_distance > spec.relative_buckets / 2, "relative_max_distance ",
        spec.relative_max_distance, ": expected more than half of the ", spec.relative_buckets, " buckets");
  check(spec.num_encoder_layers == 0 || (spec.norm == Norm::rms && spec.norm_placement == NormPlacement::before &&
                                         spec.topology == Topology::sequential && spec.relative_buckets > 0),
        "an encoder: expected sequential blocks with an RMSNorm before each branch and relative biases");
  check(spec.num_experts == 0 || (spec.num_experts_per_tok > 0 && spec.num_experts_per_tok <= spec.num_experts), "num_experts_per_tok ",
        spec.num_experts_per_tok, ": expected 1 to num_experts ", spec.num_experts);
  check(spec.num_experts == 0 || spec.moe_intermediate_size > 0, "moe_intermediate_size: expected the width of the experts");
  check(spec.num_experts == 0 || (spec.norm_placement == NormPlacement::before && spec.num_encoder_layers == 0),
        "experts: expected norms before the branches and no encoder");
  for (const int32_t layer : spec.dense_layers) {
    check(layer < spec.num_layers, "dense_layers: expected layers below ", spec.num_layers, ", got ", layer);
  }
  return spec;
}

}  // namespace

Worker::Worker(const ModelSource& source, const EngineOptions& options, const std::function<void(double)>& progress)
    : spec_(checked(source.spec)),
      options_(options),
      isa_(options.isa == Isa::auto_ ? best_isa() : options.isa),
      backend_(make_cpu_backend(isa_, static_cast<int>(options.num_threads))),
      weights_(load_weights(spec_, source.tensors, source.files, options.dtype, *backend_, progress)),
      kv_cache_(std::make_unique<KvCache>(spec_, options.dtype, options.kv_cache_bytes)) {
  // A prompt that is encoded and its completion each begin with a page of their own.
  const int64_t num_pages = kv_cache_->num_pages() - (spec_.num_encoder_layers > 0 ? 2 : 0);
  check(num_pages > 0, "KV cache of ", kv_cache_->num_pages(), " pages: expected at least 3 for a model with an encoder");
  options_.max_model_len = std::min({options.max_model_len, spec_.max_position, num_pages * kPageSize});
  decoder_ = std::make_unique<Decoder>(spec_, weights_, *kv_cache_, *backend_, options_.dtype, options_.max_num_batched_tokens,
                                       options_.max_model_len, std::max(options_.max_num_seqs, kMinLogitRows));
  if (spec_.num_encoder_layers > 0) {
    encoder_ = std::make_unique<Encoder>(spec_, weights_, *kv_cache_, *backend_, options_.dtype, options_.max_num_batched_tokens,
                                         options_.max_model_len);
  }
}

void Worker::run(const Step& step, StepResult& result) {
  for (const EncoderJob& job : step.encoder_jobs) encoder_->run(job);
  if (step.num_rows() > 0) decoder_->forward(step);
  sample(step, result);
  score(step, result);
  pool(step);
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
  const Matrix<float> logits = decoder_->unembed({step.sample_rows.data(), num_samples});
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
    const Matrix<float> logits = decoder_->unembed({step.score_rows.data() + first, count});
    backend_->score(logits, {step.scores.data() + first, count}, {result.score_logprobs.data() + first, count},
                    {result.score_ranks.data() + first, count},
                    {result.score_top_tokens.data() + first * kMaxLogprobs, count, kMaxLogprobs},
                    {result.score_top_logprobs.data() + first * kMaxLogprobs, count, kMaxLogprobs});
  }
}

// One row after the other in double precision, so that a sum has the same bits however the prompt was cut.
void Worker::pool(const Step& step) {
  const int64_t num_pooled = static_cast<int64_t>(step.pool_rows.size());
  for (int64_t first = 0; first < num_pooled; first += decoder_->max_logit_rows()) {
    const int64_t count = std::min(num_pooled - first, decoder_->max_logit_rows());
    const Matrix<float> hidden = decoder_->final_hidden({step.pool_rows.data() + first, count});
    for (int64_t r = 0; r < count; ++r) {
      std::vector<double>& sum = *step.pool_sums[static_cast<size_t>(first + r)];
      sum.resize(static_cast<size_t>(hidden.cols));
      for (int64_t i = 0; i < hidden.cols; ++i) sum[static_cast<size_t>(i)] += static_cast<double>(hidden.row(r)[i]);
    }
  }
}

std::vector<float> Worker::logits(const Step& step) {
  for (const EncoderJob& job : step.encoder_jobs) encoder_->run(job);
  decoder_->forward(step);
  std::vector<float> all(static_cast<size_t>(step.num_rows() * spec_.vocab_size));
  std::vector<int32_t> row(1);
  for (int64_t r = 0; r < step.num_rows(); ++r) {
    row[0] = static_cast<int32_t>(r);
    const Matrix<float> logits = decoder_->unembed({row.data(), 1});
    std::copy_n(logits.data, spec_.vocab_size, all.begin() + r * spec_.vocab_size);
  }
  return all;
}

EngineInfo Worker::info() const {
  EngineInfo info;
  info.num_parameters = static_cast<double>(weights_.num_parameters);
  info.weight_bytes = static_cast<double>(weights_.num_bytes);
  info.kv_cache_bytes = static_cast<double>(kv_cache_->num_pages() * KvCache::page_bytes(spec_, options_.dtype));
  info.num_pages = static_cast<double>(kv_cache_->num_pages());
  info.page_size = static_cast<double>(kPageSize);
  info.max_model_len = static_cast<double>(options_.max_model_len);
  info.num_threads = static_cast<double>(options_.num_threads);
  info.isa = isa_;
  info.dtype = options_.dtype;
  return info;
}

}  // namespace parley

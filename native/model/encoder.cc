#include "model/encoder.h"

#include <algorithm>
#include <numeric>

#include "model/block.h"
#include "model/relative_bias.h"

namespace parley {
namespace {

// Nothing is rotated.
HeadLayout head_layout(const ModelSpec& spec) { return {spec.num_heads, spec.num_kv_heads, spec.head_dim, 0}; }

int64_t rows_at_once(const StackLimits& limits) { return std::min(limits.rows, limits.positions); }

Matrix<float> rows_of(const Matrix<float>& matrix, int64_t first, int64_t count) {
  return {matrix.data + first * matrix.stride, count, matrix.cols, matrix.stride};
}

}  // namespace

std::vector<MatrixPlan<Encoder>> Encoder::plan(const ModelSpec& spec, const StackLimits& limits) {
  const HeadLayout heads = head_layout(spec);
  const int64_t rows = rows_at_once(limits);
  return {
      {&Encoder::hidden_, limits.positions, spec.hidden_size},
      {&Encoder::qkv_, limits.positions, heads.qkv_size()},
      {&Encoder::normed_, rows, spec.hidden_size},
      {&Encoder::attention_, rows, heads.query_size()},
      {&Encoder::gate_up_, spec.gated_mlp ? rows : 0, 2 * spec.intermediate_size},
      {&Encoder::mlp_, rows, spec.intermediate_size},
      {&Encoder::bias_, spec.num_heads, relative_bias_cols(spec, true)},
  };
}

// Of keys, and again of values.
int64_t Encoder::kv_bytes(const ModelSpec& spec, DType dtype, const StackLimits& limits) {
  const int64_t slots = checked_mul(ceil_div(limits.positions, kPageSize), kPageSize);
  return checked_mul(checked_mul(slots, head_layout(spec).kv_size()), dtype_bytes(dtype));
}

int64_t Encoder::workspace_bytes(const ModelSpec& spec, DType dtype, const StackLimits& limits) {
  return checked_add(planned_bytes(plan(spec, limits)), checked_mul(2, checked_add(kv_bytes(spec, dtype, limits), Arena::kCacheLine)));
}

Encoder::Encoder(const ModelSpec& spec, const Weights& weights, const KvCache& kv_cache, Backend& backend, DType dtype,
                 const StackLimits& limits)
    : spec_(spec),
      weights_(weights),
      kv_cache_(kv_cache),
      backend_(backend),
      heads_(head_layout(spec)),
      max_rows_(rows_at_once(limits)),
      workspace_(std::make_unique<Arena>(workspace_bytes(spec, dtype, limits))) {
  take_workspace(*this, plan(spec, limits), *workspace_);
  const int64_t num_pages = ceil_div(limits.positions, kPageSize);
  void* keys = workspace_->take(kv_bytes(spec, dtype, limits));
  kv_ = {keys, workspace_->take(kv_bytes(spec, dtype, limits)), dtype, num_pages};
  fill_relative_bias(bias_, spec, weights.encoder_relative_bias, true);

  positions_.resize(static_cast<size_t>(limits.positions));
  std::iota(positions_.begin(), positions_.end(), 0);
  sequences_.resize(static_cast<size_t>(max_rows_));
  page_table_.resize(static_cast<size_t>(num_pages));
  std::iota(page_table_.begin(), page_table_.end(), 0);
}

void Encoder::run(const EncoderJob& job) {
  check(job.tokens.size <= hidden_.rows, "encoder input of ", job.tokens.size, " tokens: expected at most ", hidden_.rows);
  num_tokens_ = job.tokens.size;
  if (job.first_layer == 0) backend_.embed(rows_of(hidden_, 0, num_tokens_), weights_.embedding, job.tokens, 1);
  for (int64_t layer = job.first_layer; layer < job.last_layer; ++layer) {
    run_block(weights_.encoder_layers[static_cast<size_t>(layer)]);
  }
  if (job.last_layer == spec_.num_encoder_layers) write_cross_kv(job);
}

// All keys and values first, then, for some rows at a time, what reads them.
void Encoder::run_block(const LayerWeights& layer) {
  const float eps = static_cast<float>(spec_.norm_eps);
  for (int64_t first = 0; first < num_tokens_; first += max_rows_) {
    const int64_t count = std::min(max_rows_, num_tokens_ - first);
    const auto normed = rows_of(normed_, 0, count);
    const auto qkv = rows_of(qkv_, first, count);
    backend_.rms_norm(normed, rows_of(hidden_, first, count), span(layer.attention_norm.weight), spec_.hidden_size, eps);
    backend_.linear(qkv, normed, layer.qkv.weight, {}, Epilogue::store);
    backend_.write_kv(kv_, qkv, {&positions_[static_cast<size_t>(first)], count}, heads_);
  }
  AttentionRule rule;
  rule.scale = static_cast<float>(spec_.attention_scale);
  rule.num_keys = num_tokens_;
  rule.bias = bias_;
  const Matrix<const int32_t> page_table(page_table_.data(), 1, static_cast<int64_t>(page_table_.size()));
  for (int64_t first = 0; first < num_tokens_; first += max_rows_) {
    const int64_t count = std::min(max_rows_, num_tokens_ - first);
    const auto hidden = rows_of(hidden_, first, count);
    const auto normed = rows_of(normed_, 0, count);
    const auto attention = rows_of(attention_, 0, count);
    const auto mlp = rows_of(mlp_, 0, count);
    backend_.attention(attention, rows_of(qkv_, first, count), kv_, {&positions_[static_cast<size_t>(first)], count},
                       {sequences_.data(), count}, page_table, heads_, rule);
    backend_.linear(hidden, attention, layer.attention_out.weight, {}, Epilogue::accumulate);
    backend_.rms_norm(normed, hidden, span(layer.mlp_norm.weight), spec_.hidden_size, eps);
    run_mlp(spec_, backend_, layer, normed, rows_of(gate_up_, 0, gate_up_.rows > 0 ? count : 0), mlp);
    backend_.linear(hidden, mlp, layer.mlp_down.weight, {}, Epilogue::accumulate);
  }
}

void Encoder::write_cross_kv(const EncoderJob& job) {
  slots_.clear();
  for (int64_t i = 0; i < num_tokens_; ++i) {
    slots_.push_back(static_cast<int32_t>(job.pages[i / kPageSize] * kPageSize + i % kPageSize));
  }
  for (int64_t first = 0; first < num_tokens_; first += max_rows_) {
    const int64_t count = std::min(max_rows_, num_tokens_ - first);
    const auto normed = rows_of(normed_, 0, count);
    const auto qkv = rows_of(qkv_, first, count);
    const Matrix<float> kv(qkv.data + heads_.query_size(), count, 2 * heads_.kv_size(), qkv.stride);
    backend_.rms_norm(normed, rows_of(hidden_, first, count), span(weights_.encoder_final_norm.weight), spec_.hidden_size,
                      static_cast<float>(spec_.norm_eps));
    for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
      backend_.linear(kv, normed, weights_.layers[static_cast<size_t>(layer)].cross_kv.weight, {}, Epilogue::store);
      backend_.write_kv(kv_cache_.layer(layer), qkv, {&slots_[static_cast<size_t>(first)], count}, heads_);
    }
  }
}

}  // namespace parley

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

void upload_list(Backend& backend, const Matrix<int32_t>& to, Span<const int32_t> list) {
  backend.upload(to.data, list.data, list.size * static_cast<int64_t>(sizeof(int32_t)));
}

template <class List>
Span<const int32_t> part_of(const List& list, int64_t first, int64_t count) {
  return {list.data + first, count};
}

}  // namespace

std::vector<MatrixPlan<Encoder>> Encoder::plan(const RankModel& model, const StackLimits& limits) {
  const ModelSpec& spec = model.own;
  const HeadLayout heads = head_layout(spec);
  const int64_t rows = rows_at_once(limits);
  return {
      {&Encoder::positions_, 1, limits.positions},
      {&Encoder::sequences_, 1, rows},
      {&Encoder::hidden_, limits.positions, spec.hidden_size},
      {&Encoder::qkv_, limits.positions, heads.qkv_size()},
      {&Encoder::part_, model.num_ranks() > 1 ? rows : 0, spec.hidden_size},
      {&Encoder::normed_, rows, spec.hidden_size},
      {&Encoder::attention_, rows, heads.query_size()},
      {&Encoder::gate_up_, spec.gated_mlp ? rows : 0, 2 * spec.intermediate_size},
      {&Encoder::mlp_, rows, spec.intermediate_size},
      {&Encoder::bias_, spec.num_heads, relative_bias_cols(spec, true)},
  };
}

int64_t Encoder::list_numbers(const StackLimits& limits) { return checked_mul(2, limits.positions); }

int64_t Encoder::num_plans(const StackLimits& limits) { return ceil_div(limits.positions, rows_at_once(limits)); }

// Of keys, and again of values.
int64_t Encoder::kv_bytes(const ModelSpec& spec, DType dtype, const StackLimits& limits) {
  const int64_t slots = checked_mul(ceil_div(limits.positions, kPageSize), kPageSize);
  return checked_mul(checked_mul(slots, head_layout(spec).kv_size()), dtype_bytes(dtype));
}

int64_t Encoder::workspace_bytes(const RankModel& model, DType dtype, const StackLimits& limits) {
  return checked_add(planned_bytes(plan(model, limits)), checked_mul(2, checked_add(kv_bytes(model.own, dtype, limits), Arena::kAlignment)));
}

Encoder::Encoder(const RankModel& model, Collective* collective, const Weights& weights, const KvCache& kv_cache, Backend& backend,
                 DType dtype, const StackLimits& limits)
    : spec_(model.own),
      collective_(collective),
      weights_(weights),
      kv_cache_(kv_cache),
      backend_(backend),
      heads_(head_layout(model.own)),
      first_token_(model.shard().vocab.first),
      max_rows_(rows_at_once(limits)),
      workspace_(backend, workspace_bytes(model, dtype, limits)) {
  const ModelSpec& spec = model.own;
  take_workspace(*this, plan(model, limits), workspace_);
  const int64_t num_pages = ceil_div(limits.positions, kPageSize);
  void* keys = workspace_.take(kv_bytes(spec, dtype, limits));
  kv_ = {keys, workspace_.take(kv_bytes(spec, dtype, limits)), dtype, num_pages};
  upload_table(backend, bias_, [&](auto table) { fill_relative_bias(table, spec, downloaded(backend, weights.encoder_relative_bias), true); });

  host_positions_.resize(static_cast<size_t>(limits.positions));
  std::iota(host_positions_.begin(), host_positions_.end(), 0);
  host_sequences_.resize(static_cast<size_t>(max_rows_));
  upload_list(backend, positions_, span(host_positions_));
  upload_list(backend, sequences_, span(host_sequences_));
}

void Encoder::run(const EncoderJob& job) {
  check(job.tokens.size <= hidden_.rows, "encoder input of ", job.tokens.size, " tokens: expected at most ", hidden_.rows);
  num_tokens_ = job.tokens.size;
  write_lists(job);
  for (int64_t first = 0; first < num_tokens_; first += max_rows_) {
    backend_.plan_attention(attention_rows(first, std::min(max_rows_, num_tokens_ - first)), heads_, rule());
  }
  backend_.send_block();
  if (job.first_layer == 0) embed();
  for (int64_t layer = job.first_layer; layer < job.last_layer; ++layer) {
    run_block(weights_.encoder_layers[static_cast<size_t>(layer)]);
  }
  if (job.last_layer == spec_.num_encoder_layers) write_cross_kv();
}

// Begins the backend's block with the lists that the job needs.
void Encoder::write_lists(const EncoderJob& job) {
  const int64_t num_tokens = job.first_layer == 0 ? num_tokens_ : 0;
  const int64_t num_slots = job.last_layer == spec_.num_encoder_layers ? num_tokens_ : 0;
  const ListBlock block = backend_.begin_block(num_tokens + num_slots);
  tokens_ = {block.ops, num_tokens};
  slots_ = {block.ops + num_tokens, num_slots};
  std::copy_n(job.tokens.data, num_tokens, block.host);
  for (int64_t i = 0; i < num_slots; ++i) {
    block.host[num_tokens + i] = static_cast<int32_t>(job.pages[i / kPageSize] * kPageSize + i % kPageSize);
  }
}

void Encoder::embed() {
  for (int64_t first = 0; first < num_tokens_; first += max_rows_) {
    const int64_t count = std::min(max_rows_, num_tokens_ - first);
    embed_tokens(backend_, collective_, rows_of(hidden_, first, count), part(count), weights_.embedding, part_of(tokens_, first, count), {},
                 first_token_, 1);
  }
}

// The rank's summand of what is added to `count` rows of the residual stream.
Matrix<float> Encoder::part(int64_t count) const { return {part_.data, count, part_.cols, part_.stride}; }

// Some of the prompt's rows, at most max_rows_. Each such part has a plan of its own, the same in all blocks.
AttentionRows Encoder::attention_rows(int64_t first, int64_t count) const {
  AttentionRows rows;
  rows.positions = part_of(positions_, first, count);
  rows.sequences = part_of(sequences_, 0, count);
  rows.page_table = {positions_.data, 1, kv_.num_pages};
  rows.host_positions = &host_positions_[static_cast<size_t>(first)];
  rows.host_sequences = host_sequences_.data();
  rows.plan = first / max_rows_;
  return rows;
}

AttentionRule Encoder::rule() const {
  AttentionRule rule;
  rule.scale = static_cast<float>(spec_.attention_scale);
  rule.num_keys = num_tokens_;
  rule.bias = bias_;
  return rule;
}

// All keys and values first, then, for some rows at a time, what reads them.
void Encoder::run_block(const LayerWeights& layer) {
  const float eps = static_cast<float>(spec_.norm_eps);
  for (int64_t first = 0; first < num_tokens_; first += max_rows_) {
    const int64_t count = std::min(max_rows_, num_tokens_ - first);
    const auto normed = rows_of(normed_, 0, count);
    const auto qkv = rows_of(qkv_, first, count);
    backend_.rms_norm(normed, rows_of(hidden_, first, count), layer.attention_norm.weight, spec_.hidden_size, eps);
    linear(backend_, qkv, normed, layer.qkv.weight, {}, Epilogue::store);
    backend_.write_kv(kv_, qkv, part_of(positions_, first, count), heads_);
  }
  for (int64_t first = 0; first < num_tokens_; first += max_rows_) {
    const int64_t count = std::min(max_rows_, num_tokens_ - first);
    const auto hidden = rows_of(hidden_, first, count);
    const auto normed = rows_of(normed_, 0, count);
    const auto attention = rows_of(attention_, 0, count);
    const auto mlp = rows_of(mlp_, 0, count);
    backend_.attention(attention, rows_of(qkv_, first, count), kv_, attention_rows(first, count), heads_, rule());
    const RowNorm norm{Norm::rms, normed, layer.mlp_norm.weight, {}, eps};
    project(backend_, collective_, hidden, part(count), attention, layer.attention_out, Epilogue::accumulate, {&norm, 1});
    run_mlp(spec_, backend_, layer, normed, rows_of(gate_up_, 0, gate_up_.rows > 0 ? count : 0), mlp);
    project(backend_, collective_, hidden, part(count), mlp, layer.mlp_down, Epilogue::accumulate, {});
  }
}

void Encoder::write_cross_kv() {
  for (int64_t first = 0; first < num_tokens_; first += max_rows_) {
    const int64_t count = std::min(max_rows_, num_tokens_ - first);
    const auto normed = rows_of(normed_, 0, count);
    const auto qkv = rows_of(qkv_, first, count);
    const Matrix<float> kv(qkv.data + heads_.query_size(), count, 2 * heads_.kv_size(), qkv.stride);
    backend_.rms_norm(normed, rows_of(hidden_, first, count), weights_.encoder_final_norm.weight, spec_.hidden_size,
                      static_cast<float>(spec_.norm_eps));
    for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
      linear(backend_, kv, normed, weights_.layers[static_cast<size_t>(layer)].cross_kv.weight, {}, Epilogue::store);
      backend_.write_kv(kv_cache_.layer(layer), qkv, part_of(slots_, first, count), heads_);
    }
  }
}

}  // namespace parley

#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "model/block.h"
#include "model/relative_bias.h"

namespace parley {
namespace {

HeadLayout head_layout(const ModelSpec& spec) {
  return {spec.num_heads, spec.num_kv_heads, spec.head_dim, 2 * static_cast<int64_t>(spec.rope_frequencies.size())};
}

template <class Number>
Matrix<Number> first_rows(const Matrix<Number>& matrix, int64_t rows) {
  return {matrix.data, rows, matrix.cols, matrix.stride};
}

Output first_rows(const Output& matrix, int64_t rows) { return {matrix.data, matrix.dtype, rows, matrix.cols, matrix.stride}; }

AttentionRows with_plan(AttentionRows rows, int64_t plan) {
  rows.plan = plan;
  return rows;
}

// Angles and their parts are rounded to float32 where transformers rounds them: at position 2000 the difference would show.
void fill_cos_sin(Matrix<float> table, const std::vector<float>& frequencies, double scale) {
  const int64_t half = static_cast<int64_t>(frequencies.size());
  for (int64_t position = 0; position < table.rows; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(static_cast<float>(position) * frequencies[static_cast<size_t>(i)]);
      table.row(position)[i] = static_cast<float>(std::cos(angle)) * static_cast<float>(scale);
      table.row(position)[half + i] = static_cast<float>(std::sin(angle)) * static_cast<float>(scale);
    }
  }
}

// AttentionRule::bias. Falcon rounds the product with the key's position, so that it is no function of the distance.
void fill_alibi(Matrix<float> table, const ModelSpec& spec) {
  const auto rounded = [](float value) { return bf16_to_float(float_to_bf16(value)); };
  for (int64_t head = 0; head < table.rows; ++head) {
    const float slope = spec.alibi_slopes[static_cast<size_t>(head)];
    for (int64_t i = 0; i < table.cols; ++i) {
      const float position = static_cast<float>(i);
      if (spec.alibi_in_bfloat16) {
        table.row(head)[i] = rounded(rounded(slope) * rounded(position)) * static_cast<float>(spec.attention_scale);
      } else {
        table.row(head)[table.cols - 1 - i] = -slope * position;
      }
    }
  }
}

}  // namespace

std::vector<MatrixPlan<Decoder>> Decoder::plan(const RankModel& model, DType dtype, const StackLimits& limits, const Backend& backend) {
  const ModelSpec& spec = model.own;
  const bool alone = model.num_ranks() == 1;
  const HeadLayout heads = head_layout(spec);
  const int64_t embedding = embedding_size(spec);
  const bool projected = embedding != spec.hidden_size;
  const bool has_branch = spec.position_embedding || spec.norm_placement == NormPlacement::after ||
                          spec.norm_placement == NormPlacement::around;
  const auto input = [&](Output Decoder::*matrix, int64_t rows, int64_t cols) {
    return MatrixPlan<Decoder>{matrix, rows, cols, backend.input_type(dtype, cols)};
  };
  // What blocks read; experts and their routers read float32.
  const auto block_input = [&](Output Decoder::*matrix, int64_t rows) {
    return spec.num_experts > 0 ? MatrixPlan<Decoder>{matrix, rows, spec.hidden_size} : input(matrix, rows, spec.hidden_size);
  };
  return {
      {&Decoder::hidden_, limits.rows, spec.hidden_size},
      block_input(&Decoder::normed_, limits.rows),
      block_input(&Decoder::mlp_normed_, spec.topology == Topology::parallel ? limits.rows : 0),
      {&Decoder::branch_, has_branch ? limits.rows : 0, spec.hidden_size},
      {&Decoder::embedded_, projected ? limits.rows : 0, embedding},
      {&Decoder::part_, alone ? 0 : limits.rows, std::max(spec.hidden_size, embedding)},
      {&Decoder::apart_, !alone && model.same_bits && spec.topology != Topology::sequential ? limits.rows : 0, spec.hidden_size},
      {&Decoder::whole_heads_, !alone && spec.qk_norm == QkNorm::whole ? limits.rows : 0, head_layout(model.whole).query_size()},
      {&Decoder::qkv_, limits.rows, heads.qkv_size()},
      input(&Decoder::attention_, limits.rows, heads.query_size()),
      {&Decoder::gate_up_, spec.gated_mlp ? limits.rows : 0, 2 * spec.intermediate_size},
      input(&Decoder::mlp_, limits.rows, spec.intermediate_size),
      {&Decoder::router_, spec.num_experts > 0 ? limits.rows : 0, spec.num_experts},
      {&Decoder::shares_, spec.num_experts > 0 ? limits.rows : 0, spec.num_experts_per_tok},
      {&Decoder::experts_, spec.num_experts > 0 ? limits.rows : 0, spec.num_experts_per_tok},
      {&Decoder::gathered_, limits.logit_rows, spec.hidden_size},
      {&Decoder::projected_, projected ? limits.logit_rows : 0, embedding},
      {&Decoder::logits_, limits.logit_rows, spec.vocab_size},
      {&Decoder::whole_logits_, alone ? 0 : ceil_div(limits.logit_rows, model.num_ranks()), model.whole.vocab_size},
      {&Decoder::chosen_, 1, limits.logit_rows},
      {&Decoder::own_chosen_, alone ? 0 : 1, ceil_div(limits.logit_rows, model.num_ranks())},
      {&Decoder::cos_sin_, heads.rope_dims > 0 ? limits.positions : 0, heads.rope_dims},
      {&Decoder::local_cos_sin_, spec.local_rope_frequencies.empty() ? 0 : limits.positions, heads.rope_dims},
      {&Decoder::position_bias_, spec.alibi_slopes.empty() ? 0 : spec.num_heads, limits.positions},
      {&Decoder::relative_bias_, spec.relative_buckets > 0 ? spec.num_heads : 0, relative_bias_cols(spec, false)},
  };
}

int64_t Decoder::workspace_bytes(const RankModel& model, DType dtype, const StackLimits& limits, const Backend& backend) {
  return planned_bytes(plan(model, dtype, limits, backend));
}

int64_t Decoder::num_plans(const ModelSpec& spec) {
  const std::set<int32_t> windows(spec.layer_windows.begin(), spec.layer_windows.end());
  return std::max<int64_t>(static_cast<int64_t>(windows.size()), 1) + (spec.num_encoder_layers > 0 ? 1 : 0);
}

Decoder::Decoder(const RankModel& model, Collective* collective, const Weights& weights, const KvCache& kv_cache, Backend& backend,
                 DType dtype, const StackLimits& limits)
    : model_(model),
      spec_(model.own),
      collective_(collective),
      weights_(weights),
      kv_cache_(kv_cache),
      backend_(backend),
      heads_(head_layout(model.own)),
      lists_(model.own, limits, backend),
      workspace_(backend, workspace_bytes(model, dtype, limits, backend)) {
  take_workspace(*this, plan(model, dtype, limits, backend), workspace_);
  const ModelSpec& spec = model.own;
  choice_columns_.resize(model.shards.size());
  for (const Shard& shard : model.shards) {
    query_columns_.push_back(shard.heads.times(spec.head_dim));
    key_columns_.push_back(shard.kv_heads.times(spec.head_dim));
    vocab_columns_.push_back(shard.vocab);
  }

  // The reference multiplies by a number of the weights' type: Gemma's sqrt(3072) is 55.5 in bfloat16.
  char rounded[4];
  store_number(rounded, 0, dtype, static_cast<float>(spec.embedding_scale));
  embedding_scale_ = load_number(rounded, 0, dtype);

  const bool is_long = !spec.long_rope_frequencies.empty() && limits.positions > spec.long_rope_above;
  upload_table(backend, cos_sin_, [&](auto table) {
    fill_cos_sin(table, is_long ? spec.long_rope_frequencies : spec.rope_frequencies, spec.rope_scale);
  });
  upload_table(backend, local_cos_sin_, [&](auto table) { fill_cos_sin(table, spec.local_rope_frequencies, 1); });
  upload_table(backend, position_bias_, [&](auto table) { fill_alibi(table, spec); });
  upload_table(backend, relative_bias_, [&](auto table) { fill_relative_bias(table, spec, downloaded(backend, weights.relative_bias), false); });
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    AttentionRule rule;
    rule.scale = static_cast<float>(spec.attention_scale / (spec.attention_scale_by_layer ? static_cast<double>(layer + 1) : 1.0));
    rule.softcap = static_cast<float>(spec.attention_softcap);
    if (position_bias_.rows > 0) {
      rule.bias = position_bias_;
      rule.bias_by_key = spec.alibi_in_bfloat16;
    }
    if (relative_bias_.rows > 0) rule.bias = relative_bias_;
    if (!spec.layer_windows.empty()) rule.window = spec.layer_windows[static_cast<size_t>(layer)];
    rules_.push_back(rule);
    const auto same_window = [&](const AttentionRule& other) { return other.window == rule.window; };
    const auto first = std::find_if(rules_.begin(), rules_.end(), same_window) - rules_.begin();
    plans_.push_back(first == layer ? cross_plan_++ : plans_[static_cast<size_t>(first)]);
    layer_cos_sin_.push_back(rule.window > 0 && local_cos_sin_.rows > 0 ? local_cos_sin_ : cos_sin_);
  }
  plan_norms();
  const int64_t max_pages = ceil_div(limits.positions, kPageSize);
  max_shape_ = {std::min(limits.rows, limits.sequences), max_pages, spec.num_encoder_layers > 0 ? max_pages : 0};
  encoder_rule_.scale = static_cast<float>(spec.attention_scale);
}

void Decoder::forward(const Step& step) {
  const StepShape filled = padded(step.shape());
  has_logits_ = (collective_ == nullptr || collective_->recordable(filled.rows * hidden_.cols)) && step.only_decodes();
  const StepShape shape = has_logits_ ? filled : step.shape();
  num_rows_ = shape.rows;
  num_samples_ = static_cast<int64_t>(step.samples.size());
  check(num_rows_ <= hidden_.rows, "step of ", num_rows_, " rows: expected at most ", hidden_.rows);
  lists_.write(step, shape);
  plan(step);
  backend_.send_block();
  if (!has_logits_) return run_blocks();
  backend_.record(shape, [this] {
    run_blocks();
    unembed(lists_.sample_rows());
  });
}

// The shape that the backend wants, as far as there is room.
StepShape Decoder::padded(const StepShape& shape) const {
  const StepShape wanted = backend_.padded(shape);
  const auto fit = [](int64_t count, int64_t wish, int64_t most) { return std::max(count, std::min(wish, most)); };
  return {fit(shape.rows, wanted.rows, max_shape_.rows), fit(shape.max_pages, wanted.max_pages, max_shape_.max_pages),
          fit(shape.max_encoder_pages, wanted.max_encoder_pages, max_shape_.max_encoder_pages)};
}

// Blocks read the residual stream normalised, or as it is. Who adds a branch to it makes the norms that are read next.
void Decoder::plan_norms() {
  const bool before = spec_.norm_placement == NormPlacement::before || spec_.norm_placement == NormPlacement::around;
  const bool parallel = spec_.topology == Topology::parallel;
  const auto input = [&](Output out, const NormWeights& weights) {
    return before ? std::vector<RowNorm>{row_norm(out, weights)} : std::vector<RowNorm>();
  };
  const auto start = [&](int64_t index) {
    const LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
    auto norms = input(normed_, layer.attention_norm);
    if (parallel) norms.push_back(row_norm(mlp_normed_, layer.mlp_norm));
    return norms;
  };
  norms_behind_embedding_ = start(0);
  for (int64_t index = 0; index < spec_.num_layers; ++index) {
    const LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
    LayerNorms norms;
    if (spec_.topology == Topology::sequential) {
      norms.behind_attention = input(normed_, spec_.num_encoder_layers > 0 ? layer.cross_norm : layer.mlp_norm);
      norms.behind_encoder = input(normed_, layer.mlp_norm);
    }
    if (index + 1 < spec_.num_layers) norms.behind_mlp = start(index + 1);
    if (spec_.norm_placement == NormPlacement::residual) {
      norms.behind_attention = {row_norm(hidden_, layer.attention_norm)};
      norms.behind_mlp = {row_norm(hidden_, layer.mlp_norm)};
    }
    norms_.push_back(std::move(norms));
  }
}

void Decoder::run_blocks() {
  embed();
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
    if (spec_.topology == Topology::sequential) {
      run_sequential(layer);
    } else {
      run_parallel(layer);
    }
  }
}

// One branch after the other.
void Decoder::run_sequential(int64_t index) {
  const LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
  const LayerNorms& norms = norms_[static_cast<size_t>(index)];
  const Output input = norms_behind_embedding_.empty() ? Output(first_rows(hidden_, num_rows_)) : first_rows(normed_, num_rows_);

  const Product qkv = qkv_product(layer, input);
  backend_.linear({&qkv, 1});
  attend(index);
  add_branch(first_rows(attention_, num_rows_), layer.attention_out, layer.attention_output_norm, norms.behind_attention);
  if (spec_.num_encoder_layers > 0) attend_encoder(index, input);
  if (!layer.experts.empty()) return add_experts(layer, input, norms.behind_mlp);
  const auto mlp = first_rows(mlp_, num_rows_);
  run_mlp(spec_, backend_, layer, input, first_rows(gate_up_, num_rows_), mlp);
  add_branch(mlp, layer.mlp_down, layer.mlp_output_norm, norms.behind_mlp);
}

// Both branches read the residual stream as it was, and so begin in one pass over their weights and end in another; experts have passes of
// their own. The ranks add both to the stream by one all-reduce.
void Decoder::run_parallel(int64_t index) {
  const LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
  const LayerNorms& norms = norms_[static_cast<size_t>(index)];
  const bool dense = layer.experts.empty();
  const auto mlp = first_rows(mlp_, num_rows_);
  const auto gate_up = first_rows(gate_up_, num_rows_);
  const auto input = first_rows(normed_, num_rows_);
  const auto mlp_input = spec_.topology == Topology::parallel ? first_rows(mlp_normed_, num_rows_) : input;

  Product first[] = {qkv_product(layer, input), {}};
  if (dense) first[1] = mlp_up(spec_, layer, mlp_input, gate_up, mlp);
  backend_.linear({first, dense ? 2 : 1});
  if (dense && spec_.gated_mlp) backend_.gate(mlp, gate_up, spec_.activation);
  attend(index);

  // Of several ranks each has its summands in part_; or the attention's stay apart, so that each branch is summed over the ranks by itself:
  // twice as much for them to read, and the way to the bits of one rank, which adds one branch after the other.
  const bool alone = collective_ == nullptr, apart = apart_.rows > 0;
  const auto sum = alone ? first_rows(hidden_, num_rows_) : part(spec_.hidden_size);
  const LinearWeights &out = layer.attention_out, &down = layer.mlp_down;
  const Span<const float> no_bias;  // add_parts() adds it
  const Product last[] = {
      {apart ? first_rows(apart_, num_rows_) : sum, first_rows(attention_, num_rows_), out.weight,
       alone || (!apart && model_.rank == 0) ? out.bias : no_bias, alone ? Epilogue::accumulate : Epilogue::store},
      {sum, mlp, down.weight, alone ? down.bias : no_bias, apart ? Epilogue::store : Epilogue::accumulate},
  };
  backend_.linear({last, dense ? 2 : 1});
  if (!dense) return add_experts(layer, mlp_input, norms.behind_mlp);
  if (!alone) return add_parts(layer, down.bias, norms.behind_mlp);
  backend_.normalise(first_rows(hidden_, num_rows_), span(norms.behind_mlp));
}

// Layers with the same window have the same plan; cross-attention has the one behind them.
void Decoder::plan(const Step& step) {
  int64_t num_planned = 0;
  for (size_t layer = 0; layer < rules_.size(); ++layer) {
    if (plans_[layer] < num_planned) continue;
    backend_.plan_attention(with_plan(lists_.rows(), num_planned++), heads_, rules_[layer]);
  }
  if (spec_.num_encoder_layers > 0) backend_.plan_attention(with_plan(lists_.encoder_rows(), num_planned), heads_, encoder_rule_);
  const Range own = own_samples();
  backend_.plan_choices({step.samples.data() + own.first, own.count}, span(step.scores));
}

// The step's tokens -> hidden_, and what the first block reads.
void Decoder::embed() {
  const auto hidden = first_rows(hidden_, num_rows_);
  const auto embedded = embedded_.rows > 0 ? first_rows(embedded_, num_rows_) : hidden;
  embed_tokens(backend_, collective_, embedded, part(embedded.cols), weights_.embedding, lists_.tokens(), {chosen_.data, chosen_.cols},
               model_.shard().vocab.first, embedding_scale_);
  if (embedded_.rows > 0) linear(backend_, hidden, embedded, weights_.embedding_projection, {}, Epilogue::store);
  if (spec_.position_embedding) {
    const auto positions = first_rows(branch_, num_rows_);
    backend_.embed(positions, weights_.position_embedding, lists_.rows().positions, {}, 0, 1);
    add(backend_, hidden, positions);
  }
  if (spec_.embedding_norm) norm(hidden, hidden, weights_.embedding_norm);
  backend_.normalise(hidden, span(norms_behind_embedding_));
}

// input -> qkv_
Product Decoder::qkv_product(const LayerWeights& layer, Input input) const {
  return {first_rows(qkv_, num_rows_), input, layer.qkv.weight, layer.qkv.bias, Epilogue::store};
}

// qkv_ -> attention_, through this layer's pages.
void Decoder::attend(int64_t index) {
  const LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
  const KvLayer& kv = kv_cache_.layer(index);
  const auto qkv = first_rows(qkv_, num_rows_);
  if (spec_.qk_norm != QkNorm::none) {
    norm_heads({qkv.data, num_rows_, heads_.query_size(), qkv.stride}, layer.query_norm, query_columns_);
    norm_heads({qkv.data + heads_.query_size(), num_rows_, heads_.kv_size(), qkv.stride}, layer.key_norm, key_columns_);
  }
  if (heads_.rope_dims > 0) {
    const auto& cos_sin = layer_cos_sin_[static_cast<size_t>(index)];
    backend_.rope_and_write_kv(kv, qkv, lists_.rows().positions, cos_sin, lists_.slots(), heads_, spec_.rope_layout);
  } else {
    backend_.write_kv(kv, qkv, lists_.slots(), heads_);
  }
  backend_.attention(first_rows(attention_, num_rows_), qkv, kv, with_plan(lists_.rows(), plans_[static_cast<size_t>(index)]), heads_,
                     rules_[static_cast<size_t>(index)]);
}

// hidden_ += attention to the keys and values of the encoded prompt, which the encoder left in this layer's pages.
void Decoder::attend_encoder(int64_t index, Input input) {
  const LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
  const auto hidden = first_rows(hidden_, num_rows_);
  const auto attention = first_rows(attention_, num_rows_);
  const Matrix<float> query(qkv_.data, num_rows_, heads_.query_size(), qkv_.stride);
  linear(backend_, query, input, layer.cross_query.weight, {}, Epilogue::store);
  // Causal up to the prompt's last token is all of it.
  backend_.attention(attention, query, kv_cache_.layer(index), with_plan(lists_.encoder_rows(), cross_plan_), heads_, encoder_rule_);
  project(backend_, collective_, hidden, part(spec_.hidden_size), attention, layer.cross_out, Epilogue::accumulate,
          span(norms_[static_cast<size_t>(index)].behind_encoder));
}

// hidden_ += what the experts that the router chooses make of the input. norms: of that.
void Decoder::add_experts(const LayerWeights& layer, Input input, const std::vector<RowNorm>& norms) {
  const auto logits = first_rows(router_, num_rows_);
  const auto shares = first_rows(shares_, num_rows_);
  const auto experts = first_rows(experts_, num_rows_);
  linear(backend_, logits, input, layer.router.weight, {}, Epilogue::store);
  backend_.route(experts, shares, logits, spec_.norm_topk_prob);
  const auto hidden = first_rows(hidden_, num_rows_);
  if (collective_ == nullptr) {
    backend_.mix_experts(hidden, input.floats(), experts, shares, span(layer.experts), spec_.activation);
    backend_.normalise(hidden, span(norms));
    return;
  }
  const auto own = part(spec_.hidden_size);
  const bool sequential = spec_.topology == Topology::sequential;
  if (sequential || apart_.rows > 0) backend_.sum(own, {}, {}, Epilogue::store);
  backend_.mix_experts(own, input.floats(), experts, shares, span(layer.experts), spec_.activation);
  if (sequential) {
    const Summand summand{own, {}};
    collective_->all_reduce(hidden, {&summand, 1}, Epilogue::accumulate, span(norms));
  } else {
    add_parts(layer, {}, norms);
  }
}

// hidden_ += the ranks' summands of parallel branches. bias: of the branch beside the attention; norms: of the sum.
void Decoder::add_parts(const LayerWeights& layer, Span<const float> bias, const std::vector<RowNorm>& norms) {
  const Summand summands[] = {{first_rows(apart_, num_rows_), layer.attention_out.bias}, {part(spec_.hidden_size), bias}};
  const bool apart = apart_.rows > 0;
  collective_->all_reduce(first_rows(hidden_, num_rows_), {summands + (apart ? 0 : 1), apart ? 2 : 1}, Epilogue::accumulate, span(norms));
}

// The rank's summand of what is `cols` wide.
Matrix<float> Decoder::part(int64_t cols) const { return {part_.data, num_rows_, cols, part_.cols}; }

RowNorm Decoder::row_norm(Output out, const NormWeights& weights) const {
  return {spec_.norm, out, weights.weight, weights.bias, static_cast<float>(spec_.norm_eps)};
}

void Decoder::norm(Matrix<float> out, Matrix<const float> x, const NormWeights& weights) {
  const RowNorm norm = row_norm(out, weights);
  backend_.normalise(x, {&norm, 1});
}

// Queries or keys, in place. columns: of each rank, in a row of all of them.
void Decoder::norm_heads(Matrix<float> heads, const NormWeights& weights, const std::vector<Range>& columns) {
  if (spec_.qk_norm == QkNorm::whole && collective_ != nullptr) {
    // Every rank normalises the whole row and keeps its own part, so that it has the bits that a rank alone would have.
    const Matrix<float> whole(whole_heads_.data, num_rows_, columns.back().end(), whole_heads_.stride);
    collective_->gather(whole, heads, span(columns), 0);
    norm(whole, whole, weights);
    const Range own = columns[static_cast<size_t>(model_.rank)];
    const Matrix<const float> own_part(whole.data + own.first, num_rows_, own.count, whole.stride);
    backend_.sum(heads, {&own_part, 1}, {}, Epilogue::store);
    return;
  }
  const float eps = static_cast<float>(spec_.norm_eps);
  const int64_t width = spec_.qk_norm == QkNorm::whole ? heads.cols : spec_.head_dim;
  if (spec_.norm == Norm::rms) {
    backend_.rms_norm(heads, heads, weights.weight, width, eps);
  } else {
    backend_.layer_norm(heads, heads, weights.weight, weights.bias, width, eps);
  }
}

// hidden_ += out(x), which some models normalise before it is added. norms: of the sum.
void Decoder::add_branch(Input x, const LinearWeights& out, const NormWeights& output_norm, const std::vector<RowNorm>& norms) {
  const auto hidden = first_rows(hidden_, num_rows_);
  if (spec_.norm_placement == NormPlacement::after || spec_.norm_placement == NormPlacement::around) {
    const auto branch = first_rows(branch_, num_rows_);
    const RowNorm own = row_norm(branch, output_norm);
    project(backend_, collective_, branch, part(spec_.hidden_size), x, out, Epilogue::store, {&own, 1});
    add(backend_, hidden, branch);
    backend_.normalise(hidden, span(norms));
  } else {
    project(backend_, collective_, hidden, part(spec_.hidden_size), x, out, Epilogue::accumulate, span(norms));
  }
}

Matrix<float> Decoder::sample_logits() {
  const Matrix<float> logits = collective_ == nullptr ? logits_ : whole_logits_;
  return first_rows(has_logits_ ? logits : unembed(lists_.sample_rows()), own_samples().count);
}

Span<float> Decoder::choices() const { return {(collective_ == nullptr ? chosen_ : own_chosen_).data, own_samples().count}; }

void Decoder::share_choices() {
  if (collective_ == nullptr) return;
  for (size_t rank = 0; rank < choice_columns_.size(); ++rank) choice_columns_[rank] = samples_of(static_cast<int64_t>(rank));
  const Span<float> own = choices();
  collective_->gather({chosen_.data, 1, num_samples_}, {own.data, 1, own.size}, span(choice_columns_), 0);
}

// Rows that fill the step up are the last ones.
Range Decoder::samples_of(int64_t rank) const {
  const Range rows = share_of(lists_.sample_rows().size, rank, model_.num_ranks());
  return {rows.first, std::clamp<int64_t>(num_samples_ - rows.first, 0, rows.count)};
}

Matrix<float> Decoder::final_hidden(Span<const int32_t> rows) {
  check(rows.size <= logits_.rows, "logits of ", rows.size, " rows: expected at most ", logits_.rows);
  const auto gathered = first_rows(gathered_, rows.size);
  backend_.take_rows(gathered, first_rows(hidden_, num_rows_), rows);
  if (spec_.final_norm) norm(gathered, gathered, weights_.final_norm);
  if (spec_.unembedding_scale != 1) backend_.scale(gathered, static_cast<float>(spec_.unembedding_scale));
  return gathered;
}

Matrix<float> Decoder::unembed(Span<const int32_t> rows) {
  auto features = final_hidden(rows);
  const auto logits = first_rows(logits_, rows.size);
  if (projected_.rows > 0) {
    const auto projected = first_rows(projected_, rows.size);
    linear(backend_, projected, features, weights_.output_projection, {}, Epilogue::store);
    features = projected;
  }
  linear(backend_, logits, features, weights_.unembedding.weight, weights_.unembedding.bias, Epilogue::store);
  if (spec_.logit_softcap > 0) backend_.softcap(logits, static_cast<float>(spec_.logit_softcap));
  if (collective_ == nullptr) return logits;
  const Range own = own_rows(rows.size);
  const auto whole = first_rows(whole_logits_, own.count);
  collective_->gather(whole, logits, span(vocab_columns_), own.first);
  return whole;
}

}  // namespace parley

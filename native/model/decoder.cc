#include "model/decoder.h"

#include <algorithm>
#include <cmath>

namespace parley {
namespace {

template <class T>
Span<const T> span(const std::vector<T>& list) {
  return {list.data(), static_cast<int64_t>(list.size())};
}

Matrix<float> first_rows(const Matrix<float>& matrix, int64_t rows) { return {matrix.data, rows, matrix.cols, matrix.stride}; }

Epilogue epilogue_of(Activation activation) {
  switch (activation) {
    case Activation::gelu: return Epilogue::gelu;
    case Activation::gelu_tanh: return Epilogue::gelu_tanh;
    case Activation::relu: return Epilogue::relu;
  }
  fail("activation ", static_cast<int>(activation), " has no epilogue");
}

int64_t workspace_bytes(const ModelSpec& spec, const HeadLayout& heads, int64_t max_rows, int64_t max_positions,
                        int64_t max_logit_rows) {
  const int64_t row = 2 * spec.hidden_size + heads.qkv_size() + heads.query_size() + spec.intermediate_size;
  const int64_t numbers = checked_add(
      checked_mul(max_rows, row), checked_add(checked_mul(max_logit_rows, spec.hidden_size + spec.vocab_size),
                                              checked_mul(max_positions, spec.rope_dims)));
  return checked_add(checked_mul(numbers, 4), 8 * Arena::kCacheLine);
}

}  // namespace

Decoder::Decoder(const ModelSpec& spec, const Weights& weights, const KvCache& kv_cache, Backend& backend, int64_t max_rows,
                 int64_t max_positions, int64_t max_logit_rows)
    : spec_(spec),
      weights_(weights),
      kv_cache_(kv_cache),
      backend_(backend),
      heads_{spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.rope_dims},
      workspace_(workspace_bytes(spec, heads_, max_rows, max_positions, max_logit_rows)) {
  auto matrix = [&](int64_t rows, int64_t cols) {
    return Matrix<float>(static_cast<float*>(workspace_.take(rows * cols * 4)), rows, cols);
  };
  hidden_ = matrix(max_rows, spec.hidden_size);
  normed_ = matrix(max_rows, spec.hidden_size);
  qkv_ = matrix(max_rows, heads_.qkv_size());
  attention_ = matrix(max_rows, heads_.query_size());
  mlp_ = matrix(max_rows, spec.intermediate_size);
  gathered_ = matrix(max_logit_rows, spec.hidden_size);
  logits_ = matrix(max_logit_rows, spec.vocab_size);
  cos_sin_ = matrix(max_positions, spec.rope_dims);

  // Frequencies and angles are rounded to float32 where transformers rounds them: at position 2000 the difference would show.
  const int64_t half = spec.rope_dims / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(spec.rope_dims);
    const float frequency = 1.0f / std::pow(static_cast<float>(spec.rope_theta), exponent);
    for (int64_t position = 0; position < max_positions; ++position) {
      const float angle = static_cast<float>(position) * frequency;
      cos_sin_.row(position)[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      cos_sin_.row(position)[half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

void Decoder::forward(const Step& step) {
  num_rows_ = step.num_rows();
  check(num_rows_ <= hidden_.rows, "step of ", num_rows_, " rows: expected at most ", hidden_.rows);
  const auto hidden = first_rows(hidden_, num_rows_);
  const auto normed = first_rows(normed_, num_rows_);
  const auto attention = first_rows(attention_, num_rows_);
  const auto mlp = first_rows(mlp_, num_rows_);
  const float eps = static_cast<float>(spec_.norm_eps);
  const bool parallel = spec_.topology == Topology::parallel;

  backend_.embed(hidden, weights_.embedding, span(step.tokens));
  for (int64_t i = 0; i < spec_.num_layers; ++i) {
    const LayerWeights& layer = weights_.layers[static_cast<size_t>(i)];
    backend_.layer_norm(normed, hidden, span(layer.input_norm_weight), span(layer.input_norm_bias), eps);
    attend(step, i);
    const auto post_attention_norm = [&] {
      backend_.layer_norm(normed, hidden, span(layer.post_attention_norm_weight), span(layer.post_attention_norm_bias), eps);
    };
    // Parallel blocks normalise the residual stream before the attention is added, sequential ones after: no other difference.
    if (parallel) post_attention_norm();
    backend_.linear(hidden, attention, layer.attention_out, span(layer.attention_out_bias), Epilogue::accumulate);
    if (!parallel) post_attention_norm();
    backend_.linear(mlp, normed, layer.mlp_up, span(layer.mlp_up_bias), epilogue_of(spec_.activation));
    backend_.linear(hidden, mlp, layer.mlp_down, span(layer.mlp_down_bias), Epilogue::accumulate);
  }
}

// normed_ -> attention_, through this layer's pages.
void Decoder::attend(const Step& step, int64_t index) {
  const LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
  const KvLayer& kv = kv_cache_.layer(index);
  const auto qkv = first_rows(qkv_, num_rows_);
  const Matrix<const int32_t> page_table(step.page_table.data(), step.num_sequences, step.max_pages);
  backend_.linear(qkv, first_rows(normed_, num_rows_), layer.qkv, span(layer.qkv_bias), Epilogue::store);
  if (heads_.rope_dims > 0) backend_.rope(qkv, span(step.positions), cos_sin_, heads_);
  backend_.write_kv(kv, qkv, span(step.slots), heads_);
  backend_.attention(first_rows(attention_, num_rows_), qkv, kv, span(step.positions), span(step.sequences), page_table, heads_,
                     static_cast<float>(spec_.attention_scale));
}

Matrix<float> Decoder::final_hidden(Span<const int32_t> rows) {
  check(rows.size <= logits_.rows, "logits of ", rows.size, " rows: expected at most ", logits_.rows);
  const auto gathered = first_rows(gathered_, rows.size);
  for (int64_t r = 0; r < rows.size; ++r) {
    const int32_t row = rows[r];
    check(row >= 0 && row < num_rows_, "logits of row ", row, ": the step has ", num_rows_, " rows");
    std::copy_n(hidden_.row(row), spec_.hidden_size, gathered.row(r));
  }
  backend_.layer_norm(gathered, gathered, span(weights_.final_norm_weight), span(weights_.final_norm_bias),
                      static_cast<float>(spec_.norm_eps));
  return gathered;
}

Matrix<float> Decoder::unembed(Span<const int32_t> rows) {
  const auto gathered = final_hidden(rows);
  const auto logits = first_rows(logits_, rows.size);
  backend_.linear(logits, gathered, weights_.unembedding, {}, Epilogue::store);
  return logits;
}

}  // namespace parley

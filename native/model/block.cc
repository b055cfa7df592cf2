#include "model/block.h"

namespace parley {
namespace {

Epilogue epilogue_of(Activation activation) {
  switch (activation) {
    case Activation::gelu: return Epilogue::gelu;
    case Activation::gelu_tanh: return Epilogue::gelu_tanh;
    case Activation::relu: return Epilogue::relu;
    case Activation::silu: return Epilogue::silu;
  }
  fail("activation ", static_cast<int>(activation), " has no epilogue");
}

}  // namespace

void embed_tokens(Backend& backend, Collective* collective, Matrix<float> out, Matrix<float> part, const PackedWeight& table,
                  Span<const int32_t> tokens, Span<const float> chosen, int64_t first_token, float scale) {
  backend.embed(collective == nullptr ? out : part, table, tokens, chosen, first_token, scale);
  if (collective == nullptr) return;
  const Summand summand{part, {}};
  collective->all_reduce(out, {&summand, 1}, Epilogue::store, {});
}

void project(Backend& backend, Collective* collective, Matrix<float> out, Matrix<float> part, Input x,
             const LinearWeights& weights, Epilogue epilogue, Span<const RowNorm> norms) {
  if (collective == nullptr) {
    linear(backend, out, x, weights.weight, weights.bias, epilogue);
    backend.normalise(out, norms);
    return;
  }
  linear(backend, part, x, weights.weight, {}, Epilogue::store);
  const Summand summand{part, weights.bias};
  collective->all_reduce(out, {&summand, 1}, epilogue, norms);
}

Product mlp_up(const ModelSpec& spec, const LayerWeights& layer, Input input, Matrix<float> gate_up, Output hidden) {
  if (spec.gated_mlp) return {gate_up, input, layer.mlp_up.weight, layer.mlp_up.bias, Epilogue::store};
  return {hidden, input, layer.mlp_up.weight, layer.mlp_up.bias, epilogue_of(spec.activation)};
}

void run_mlp(const ModelSpec& spec, Backend& backend, const LayerWeights& layer, Input input, Matrix<float> gate_up, Output hidden) {
  const Product up = mlp_up(spec, layer, input, gate_up, hidden);
  backend.linear({&up, 1});
  if (spec.gated_mlp) backend.gate(hidden, gate_up, spec.activation);
}

}  // namespace parley

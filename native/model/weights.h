// A checkpoint's numbers in the one canonical layout that the decoder computes with.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/arena.h"
#include "ops/backend.h"

namespace parley {

// One decoder block. H hidden, Q = num_heads head_dim, KV = num_kv_heads head_dim, F intermediate. A bias may be empty.
struct LayerWeights {
  std::vector<float> input_norm_weight, input_norm_bias;                    // [H]
  std::vector<float> post_attention_norm_weight, post_attention_norm_bias;  // [H]
  PackedWeight qkv;                                                         // [Q + 2 KV, H]
  std::vector<float> qkv_bias;                                              // [Q + 2 KV]
  PackedWeight attention_out;                                               // [H, Q]
  std::vector<float> attention_out_bias;                                    // [H]
  PackedWeight mlp_up;                                                      // [F, H]
  std::vector<float> mlp_up_bias;                                           // [F]
  PackedWeight mlp_down;                                                    // [H, F]
  std::vector<float> mlp_down_bias;                                         // [H]
};

struct Weights {
  PackedWeight embedding;    // [V, H]
  PackedWeight unembedding;  // [V, H]; the embedding's memory when tied
  std::vector<float> final_norm_weight, final_norm_bias;  // [H]
  std::vector<LayerWeights> layers;
  int64_t num_parameters = 0;
  int64_t num_bytes = 0;
  std::unique_ptr<Arena> arena;  // owns the packed memory
};

// Maps `files` and packs the tensors that `sources` describe, as `dtype`. Each role of `spec` must be there once a layer, biases
// excepted. Throws Error naming tensor, file, what was expected and what was found; every size is checked before a byte is read.
// progress: fraction of the bytes done, 0..1.
Weights load_weights(const ModelSpec& spec, const std::vector<TensorSource>& sources, const std::vector<std::string>& files,
                     DType dtype, Backend& backend, const std::function<void(double)>& progress);

}  // namespace parley

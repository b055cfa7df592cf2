// A checkpoint's numbers in the one canonical layout that the decoder computes with.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/arena.h"
#include "model/shard.h"
#include "ops/backend.h"

namespace parley {

// A norm's numbers, in the backend's memory as all that follows; empty ones count as 1 and 0.
struct NormWeights {
  Span<const float> weight;
  Span<const float> bias;
};

// y = x W^T + bias; the bias may be empty.
struct LinearWeights {
  PackedWeight weight;
  Span<const float> bias;
};

// One decoder block. H hidden, Q = num_heads head_dim, KV = num_kv_heads head_dim, F intermediate; of several ranks, each has its own part
// of the heads, of F and of the vocabulary V (shard.h). ModelSpec says which norms are used.
struct LayerWeights {
  NormWeights attention_norm;         // [H]
  NormWeights attention_output_norm;  // [H]
  NormWeights mlp_norm;               // [H]
  NormWeights mlp_output_norm;        // [H]
  NormWeights query_norm;             // [head_dim], the same for all heads, or [Q], which for a norm of the whole row is all ranks'
  NormWeights key_norm;               // [head_dim] or [KV]
  LinearWeights qkv;                  // [Q + 2 KV, H]
  LinearWeights attention_out;        // [H, Q]
  LinearWeights mlp_up;               // [F, H], or gate and up [2 F, H]
  LinearWeights mlp_down;             // [H, F]
  LinearWeights router;               // [num_experts, H]; a block with experts has these in place of mlp_up and mlp_down
  std::vector<ExpertWeights> experts; // [num_experts]
  NormWeights cross_norm;             // [H]; what follows: only a decoder's with an encoder
  LinearWeights cross_query;          // [Q, H]
  LinearWeights cross_kv;             // [2 KV, H] of the encoder's output
  LinearWeights cross_out;            // [H, Q]
};

struct Weights {
  PackedWeight embedding;             // [V, E]; E is the embedding's own width or H
  PackedWeight position_embedding;    // [max_position, H] or nothing
  PackedWeight embedding_projection;  // [H, E] or nothing
  PackedWeight output_projection;     // [E, H] or nothing
  NormWeights embedding_norm;         // [H]
  NormWeights final_norm;             // [H]
  LinearWeights unembedding;          // [V, E]; the embedding's memory when tied
  Span<const float> relative_bias;    // [relative_buckets, num_heads] or nothing
  std::vector<LayerWeights> layers;
  NormWeights encoder_final_norm;           // [H]
  Span<const float> encoder_relative_bias;  // as the decoder's
  std::vector<LayerWeights> encoder_layers;
  int64_t num_parameters = 0;       // of the whole model
  int64_t num_bytes = 0;            // the rank's matrices and vectors
  std::unique_ptr<Arena> matrices;  // own their memory
  std::unique_ptr<Arena> vectors;
};

// Width of the embedding: its own, or the residual stream's.
inline int64_t embedding_size(const ModelSpec& spec) { return spec.embedding_size > 0 ? spec.embedding_size : spec.hidden_size; }

// Memory that load_weights() takes for the matrices of a rank's own spec.
int64_t matrix_bytes(const ModelSpec& own, DType dtype, const Backend& backend);

// Maps `files` and packs the rank's part of the tensors that `sources` describe, as `dtype`. Every matrix of the model must be there;
// biases and the numbers of norms may be absent. Throws Error naming tensor, file, what was expected and what was found; every size is
// checked before a byte is read. progress: fraction of the bytes done, 0..1.
Weights load_weights(const RankModel& model, const std::vector<TensorSource>& sources, const std::vector<std::string>& files,
                     DType dtype, Backend& backend, const std::function<void(double)>& progress);

}  // namespace parley

// What one of several ranks has of a model (tensor parallel): plain numbers, known before anything is loaded.
//
// Queries, keys and values, the MLP's and the experts' hidden layers and the vocabulary are cut into the ranks' parts; what reads those
// layers (the attention's output, the MLP's down) is cut the same way along its inputs, so that each rank has a summand of the result.
// Norms, position embeddings, projections of the embedding and routers are whole on every rank.
#pragma once

#include <cstddef>
#include <vector>

#include "base/range.h"
#include "contract.h"

namespace parley {

struct Shard {
  int64_t rank = 0;
  int64_t num_ranks = 1;
  Range heads;     // of queries
  Range kv_heads;  // those that the rank's queries read; with fewer of them than ranks, some ranks have the same one
  Range mlp;       // of intermediate_size
  Range expert;    // of moe_intermediate_size
  Range vocab;     // of vocab_size
};

// The shards of all ranks; every one has some of everything that the model has. Throws Error if there are more ranks than that allows.
std::vector<Shard> make_shards(const ModelSpec& spec, int64_t num_ranks);

// A model as one of its ranks sees it.
struct RankModel {
  // Throws Error as make_shards does.
  RankModel(const ModelSpec& spec, const EngineOptions& options, int64_t rank);

  const Shard& shard() const { return shards[static_cast<size_t>(rank)]; }
  int64_t num_ranks() const { return static_cast<int64_t>(shards.size()); }

  // num_ranks() if all ranks have equally many of what `part` counts, else 1.
  int64_t equal_parts(Range Shard::* part) const;

  int64_t rank;
  std::vector<Shard> shards;  // of all ranks
  ModelSpec whole;
  ModelSpec own;  // what the rank computes: `whole` with the sizes of its shard
  bool same_bits; // what the ranks add up they add as one rank alone does
};

// What a rank has of a tensor [rows, cols] of `role`: these rows and columns. Of tensors that share a role, these (experts, or the norms
// of heads); no parts: the rank has nothing of it.
struct Slice {
  Range rows;
  Range cols;
  Range parts;
};
Slice slice_of(TensorRole role, const ModelSpec& spec, const Shard& shard, int64_t rows, int64_t cols, int64_t num_parts);

}  // namespace parley

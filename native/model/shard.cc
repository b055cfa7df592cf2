#include "model/shard.h"

#include <algorithm>

#include "base/arithmetic.h"
#include "base/check.h"

namespace parley {
namespace {

// Boundaries between ranks are multiples of this where the parts are large: whole panels of packed weights (kPanelRows of cpu/, tiles of
// GPUs). The parts then differ by an eighth at most.
constexpr int64_t kUnit = 32;
constexpr int64_t kUnitsOfLargeParts = 8;

Range part_of(int64_t size, int64_t rank, int64_t num_ranks) {
  if (size < kUnit * kUnitsOfLargeParts * num_ranks) return share_of(size, rank, num_ranks);
  const Range units = share_of(ceil_div(size, kUnit), rank, num_ranks).times(kUnit);
  return {units.first, std::min(units.end(), size) - units.first};
}

// Whole groups of a key/value head and its queries; with fewer groups than ranks, some ranks share the queries of one.
void share_heads(const ModelSpec& spec, Shard& shard) {
  const int64_t group = spec.num_heads / spec.num_kv_heads;
  if (shard.num_ranks <= spec.num_kv_heads) {
    shard.kv_heads = share_of(spec.num_kv_heads, shard.rank, shard.num_ranks);
    shard.heads = shard.kv_heads.times(group);
    return;
  }
  const auto kv_head_of = [&](int64_t rank) { return rank * spec.num_kv_heads / shard.num_ranks; };
  const int64_t kv_head = kv_head_of(shard.rank);
  int64_t first = shard.rank, last = shard.rank;
  while (first > 0 && kv_head_of(first - 1) == kv_head) --first;
  while (last + 1 < shard.num_ranks && kv_head_of(last + 1) == kv_head) ++last;
  const Range queries = share_of(group, shard.rank - first, last + 1 - first);
  shard.kv_heads = {kv_head, 1};
  shard.heads = {kv_head * group + queries.first, queries.count};
}

}  // namespace

std::vector<Shard> make_shards(const ModelSpec& spec, int64_t num_ranks) {
  const auto check_size = [num_ranks](int64_t size, const char* what) {
    check(num_ranks <= size, "tensor_parallel_size: expected at most ", size, ", the model's ", what, ", got ", num_ranks);
  };
  check(num_ranks >= 1, "tensor_parallel_size: expected at least 1, got ", num_ranks);
  check_size(spec.num_heads, "number of heads");
  check_size(spec.intermediate_size, "intermediate_size");
  if (spec.num_experts > 0) check_size(spec.moe_intermediate_size, "moe_intermediate_size");
  check_size(spec.vocab_size, "vocab_size");
  std::vector<Shard> shards;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    Shard shard;
    shard.rank = rank;
    shard.num_ranks = num_ranks;
    share_heads(spec, shard);
    shard.mlp = part_of(spec.intermediate_size, rank, num_ranks);
    shard.expert = part_of(spec.moe_intermediate_size, rank, num_ranks);
    shard.vocab = part_of(spec.vocab_size, rank, num_ranks);
    shards.push_back(shard);
  }
  return shards;
}

RankModel::RankModel(const ModelSpec& spec, const EngineOptions& options, int64_t rank)
    : rank(rank),
      shards(make_shards(spec, options.tensor_parallel_size)),
      whole(spec),
      own(spec),
      same_bits(options.device == Device::cuda && options.deterministic) {
  const Shard& shard = shards[static_cast<size_t>(rank)];
  own.num_heads = shard.heads.count;
  own.num_kv_heads = shard.kv_heads.count;
  own.intermediate_size = shard.mlp.count;
  own.moe_intermediate_size = shard.expert.count;
  own.vocab_size = shard.vocab.count;
  if (!spec.alibi_slopes.empty()) {
    own.alibi_slopes.assign(spec.alibi_slopes.begin() + shard.heads.first, spec.alibi_slopes.begin() + shard.heads.end());
  }
}

int64_t RankModel::equal_parts(Range Shard::* part) const {
  const auto as_many = [&](const Shard& shard) { return (shard.*part).count == (shards[0].*part).count; };
  return std::all_of(shards.begin(), shards.end(), as_many) ? num_ranks() : 1;
}

Slice slice_of(TensorRole role, const ModelSpec& spec, const Shard& shard, int64_t rows, int64_t cols, int64_t num_parts) {
  Slice slice{{0, rows}, {0, cols}, {0, num_parts}};
  switch (role) {
    case TensorRole::embedding:
    case TensorRole::unembedding:
    case TensorRole::unembedding_bias: slice.rows = shard.vocab; break;
    case TensorRole::query_weight:
    case TensorRole::query_bias:
    case TensorRole::cross_query_weight: slice.rows = shard.heads.times(spec.head_dim); break;
    case TensorRole::key_weight:
    case TensorRole::key_bias:
    case TensorRole::value_weight:
    case TensorRole::value_bias:
    case TensorRole::cross_key_weight:
    case TensorRole::cross_value_weight: slice.rows = shard.kv_heads.times(spec.head_dim); break;
    // A norm over all heads is computed from all heads on every rank.
    case TensorRole::query_norm_weight:
    case TensorRole::query_norm_bias:
      if (spec.qk_norm == QkNorm::each_head) slice.parts = shard.heads;
      break;
    case TensorRole::key_norm_weight:
    case TensorRole::key_norm_bias:
      if (spec.qk_norm == QkNorm::each_head) slice.parts = shard.kv_heads;
      break;
    case TensorRole::attention_out_weight:
    case TensorRole::cross_out_weight: slice.cols = shard.heads.times(spec.head_dim); break;
    case TensorRole::mlp_gate_weight:
    case TensorRole::mlp_gate_bias:
    case TensorRole::mlp_up_weight:
    case TensorRole::mlp_up_bias: slice.rows = shard.mlp; break;
    case TensorRole::mlp_down_weight: slice.cols = shard.mlp; break;
    case TensorRole::expert_gate_weight:
    case TensorRole::expert_up_weight: slice.rows = shard.expert; break;
    case TensorRole::expert_down_weight: slice.cols = shard.expert; break;
    case TensorRole::relative_bias: slice.cols = shard.heads; break;
    default: break;
  }
  return slice;
}

}  // namespace parley

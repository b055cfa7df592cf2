#include "model/checked.h"

#include "base/check.h"

namespace parley {

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

}  // namespace parley

#include "model/memory.h"

#include <algorithm>

#include "cpu/cpu_backend.h"
#include "model/decoder.h"
#include "model/encoder.h"

namespace parley {
namespace {

// Prompts are scored so many rows at a time at least, so that a server for few requests does not read the unembedding for each token.
constexpr int64_t kMinLogitRows = 32;

// ScratchLimits::pass_cols of one input.
int64_t in_pass(int64_t cols) { return ceil_div(cols, kPassCols) * kPassCols; }

}  // namespace

Isa isa_of(const EngineOptions& options) { return options.isa == Isa::auto_ ? best_isa(options.dtype) : options.isa; }

StackLimits stack_limits(const EngineOptions& options) {
  return {options.max_num_batched_tokens, options.max_model_len, options.max_num_seqs,
          std::max(options.max_num_seqs, kMinLogitRows)};
}

int64_t threads_of_rank(const EngineOptions& options, int64_t rank) {
  return std::max<int64_t>(share_of(options.num_threads, rank, options.tensor_parallel_size).count, 1);
}

ScratchLimits scratch_limits(const RankModel& model, const EngineOptions& options) {
  const ModelSpec& spec = model.own;
  const StackLimits limits = stack_limits(options);
  const int64_t query_size = spec.num_heads * spec.head_dim;
  const int64_t cols = std::max({spec.hidden_size, query_size, spec.intermediate_size, embedding_size(spec)});
  int64_t pass_cols = in_pass(cols);
  if (spec.topology == Topology::parallel) pass_cols = std::max(pass_cols, 2 * in_pass(spec.hidden_size));
  if (spec.topology != Topology::sequential) pass_cols = std::max(pass_cols, in_pass(query_size) + in_pass(spec.intermediate_size));
  const bool has_encoder = spec.num_encoder_layers > 0;
  return {std::max(limits.rows, limits.logit_rows),
          cols,
          spec.gated_mlp ? 0 : spec.intermediate_size,
          pass_cols,
          spec.num_experts,
          checked_mul(limits.rows, spec.num_experts_per_tok),
          spec.hidden_size,
          spec.moe_intermediate_size,
          limits.positions,
          limits.sequences,
          spec.num_heads,
          spec.head_dim,
          model.whole.vocab_size,
          threads_of_rank(options, model.rank),
          std::max(StepLists::numbers(spec, limits), has_encoder ? Encoder::list_numbers(limits) : 0),
          std::max(Decoder::num_plans(spec), has_encoder ? Encoder::num_plans(limits) : 0)};
}

MemoryPlan plan_memory(const ModelSpec& spec, const EngineOptions& options, const Backend& backend) {
  std::vector<RankModel> ranks;
  for (int64_t rank = 0; rank < options.tensor_parallel_size; ++rank) ranks.emplace_back(spec, options, rank);

  MemoryPlan plan;
  for (const RankModel& model : ranks) {
    const double page_bytes = static_cast<double>(KvCache::page_bytes(model.own, options.dtype));
    plan.page_bytes += page_bytes;
    plan.rank_page_bytes = std::max(plan.rank_page_bytes, page_bytes);
  }
  const int64_t page_bytes = static_cast<int64_t>(plan.page_bytes);
  const int64_t num_pages = options.kv_cache_bytes / page_bytes;
  check(num_pages > 0, "KV cache of ", options.kv_cache_bytes, " bytes: expected room for one page of ", page_bytes, " bytes");
  // A prompt that is encoded and its completion each begin with a page of their own.
  const int64_t usable_pages = num_pages - (spec.num_encoder_layers > 0 ? 2 : 0);
  check(usable_pages > 0, "KV cache of ", num_pages, " pages: expected at least 3 for a model with an encoder");
  EngineOptions fitted = options;
  fitted.max_model_len = std::min({options.max_model_len, spec.max_position, checked_mul(usable_pages, kPageSize)});
  plan.page_size = static_cast<double>(kPageSize);
  plan.num_pages = static_cast<double>(num_pages);
  plan.max_model_len = static_cast<double>(fitted.max_model_len);

  const StackLimits limits = stack_limits(fitted);
  for (const RankModel& model : ranks) {
    const int64_t scratch = backend.scratch_bytes(scratch_limits(model, fitted));
    int64_t workspace = checked_add(Decoder::workspace_bytes(model, options.dtype, limits, backend), scratch);
    if (spec.num_encoder_layers > 0) workspace = checked_add(workspace, Encoder::workspace_bytes(model, options.dtype, limits));
    const double matrices = static_cast<double>(matrix_bytes(model.own, options.dtype, backend));
    plan.matrix_bytes += matrices;
    plan.workspace_bytes += static_cast<double>(workspace);
    plan.scratch_bytes += static_cast<double>(scratch);
    plan.rank_matrix_bytes = std::max(plan.rank_matrix_bytes, matrices);
    plan.rank_workspace_bytes = std::max(plan.rank_workspace_bytes, static_cast<double>(workspace));
  }
  return plan;
}

}  // namespace parley

#include "cuda/attention.h"

#include <algorithm>

#include "base/arithmetic.h"
#include "cuda/numbers.h"

namespace parley {
namespace cuda {
namespace {

// Sums that the splits of a step's tiles leave in memory: 32 MiB. A plan cuts no more tiles than have room.
constexpr int64_t kMostPartialNumbers = int64_t{8} << 20;
constexpr int64_t kMostSplitTasks = 8192;

// Blocks that a kernel is started with, at most, for each multiprocessor: enough that those which end early make room for others.
constexpr int64_t kBlocksPerMultiprocessor = 16;

int64_t partial_stride(int64_t head_dim) { return kPartialHeader + ceil_div(head_dim, 4) * 4; }

// Blocks for each key/value head, for at most `tasks` tasks; a block takes several if there are more.
int64_t num_blocks(int64_t tasks, int64_t num_kv_heads, int64_t multiprocessors) {
  return std::min(tasks, ceil_div(kBlocksPerMultiprocessor * std::max<int64_t>(1, multiprocessors), num_kv_heads));
}

// What the plans of calls within the limits come to, at most.
struct Sizes {
  int64_t tasks;     // of a plan
  int64_t partials;  // float32 numbers
  int64_t arrived;

  explicit Sizes(const ScratchLimits& limits) {
    const int64_t pairs = checked_mul(limits.rows, limits.num_heads);
    const int64_t tiles = checked_add(limits.sequences, ceil_div(pairs, kWidePairs));
    const int64_t splits = ceil_div(limits.context, kSplitKeys) + 1;
    tasks = checked_add(tiles, std::min(checked_mul(tiles, splits), kMostSplitTasks));
    partials = std::min(kMostPartialNumbers, checked_mul(checked_mul(pairs, splits), partial_stride(limits.head_dim)));
    arrived = checked_mul(std::min(tiles, kMostSplitTasks / 2), limits.num_heads);
  }
};

}  // namespace

int64_t Attention::scratch_bytes(const ScratchLimits& limits) const {
  check(limits.head_dim <= kMaxHeadDim, "attention heads of ", limits.head_dim, " dims: on a GPU they can have ", kMaxHeadDim);
  const Sizes size(limits);
  return 4 * (size.partials + size.arrived);
}

int64_t Attention::block_bytes(const ScratchLimits& limits) const {
  const int64_t of_tasks = checked_mul(limits.plans, StepBlock::bytes<AttentionTask>(Sizes(limits).tasks));
  return checked_add(StepBlock::bytes<PlanHeader>(limits.plans), of_tasks);
}

void Attention::reserve(const ScratchLimits& limits) {
  const Sizes size(limits);
  plans_.resize(static_cast<size_t>(limits.plans));
  partials_.reserve<float>(size.partials);
  unsigned* arrived = arrived_.reserve<unsigned>(size.arrived);
  check(cudaMemsetAsync(arrived, 0, static_cast<size_t>(arrived_.bytes()), stream_), "memory set to 0");
}

void Attention::begin_block(StepBlock& block) { headers_ = block.take<PlanHeader>(static_cast<int64_t>(plans_.size())); }

// Large tiles read keys and values less often; small ones are done sooner, where there is a multiprocessor for each.
int64_t Attention::wide_pairs(const AttentionRows& rows, HeadLayout heads) const {
  if (!runs_hopper(heads.head_dim) || count_tiles(rows, heads, kWidePairs) * heads.num_kv_heads <= multiprocessors_) return kWidePairs;
  return hopper_pairs(heads.head_dim);
}

void Attention::plan(const AttentionRows& rows, HeadLayout heads, const AttentionRule& rule, StepBlock& block) {
  check(heads.head_dim <= kMaxHeadDim, "attention on CUDA: heads of ", heads.head_dim, " dims, expected at most ", kMaxHeadDim);
  check(rows.plan < static_cast<int64_t>(plans_.size()), "attention on CUDA: plan ", rows.plan, " of ", plans_.size());
  if (rows.positions.size == 0) return;
  const int64_t pair_numbers = heads.num_kv_heads * partial_stride(heads.head_dim);
  const AttentionLimits limits{wide_pairs(rows, heads), multiprocessors_, kMostPartialNumbers / pair_numbers, kMostSplitTasks};
  const AttentionPlan plan = plan_attention(rows, heads, rule, limits);
  check(plan.num_partials * pair_numbers * 4 <= partials_.bytes() && plan.num_split_tiles * heads.num_kv_heads * 4 <= arrived_.bytes(),
        "attention on CUDA: ", plan.num_partials, " partial sums of ", plan.num_split_tiles, " tiles have no room");
  const auto num_narrow = static_cast<int64_t>(plan.narrow.size()), num_wide = static_cast<int64_t>(plan.wide.size());
  const auto tasks = block.take<AttentionTask>(num_narrow + num_wide);
  std::copy(plan.wide.begin(), plan.wide.end(), std::copy(plan.narrow.begin(), plan.narrow.end(), tasks.host));
  headers_.host[rows.plan] = {tasks.device, static_cast<int32_t>(num_narrow), static_cast<int32_t>(num_wide)};

  Planned& planned = plans_[static_cast<size_t>(rows.plan)];
  planned = {num_narrow, num_wide};
  const int32_t* sequences = rows.host_sequences;
  if (std::adjacent_find(sequences, sequences + rows.positions.size) == sequences + rows.positions.size) {
    // Every row has a sequence of its own: not as many tasks as there are now, but as there can be.
    const RowTiles tiles = tiles_of_row(heads, limits.wide_pairs);
    const int64_t splits = ceil_div(rows.page_table.cols * kPageSize, kSplitKeys);
    planned.num_narrow = tiles.narrow * rows.positions.size * splits;
    planned.num_wide = tiles.wide * rows.positions.size * splits;
  }
}

void Attention::run(Output out, Matrix<const float> qkv, const KvLayer& kv, const AttentionRows& rows, HeadLayout heads,
                    const AttentionRule& rule) {
  if (out.rows == 0) return;
  check(out.dtype == DType::float32 || out.dtype == kv.dtype, "attention on CUDA: ", dtype_name(out.dtype), " of ", dtype_name(kv.dtype), " keys");
  AttentionCall call{};
  call.out = out;
  call.qkv = qkv;
  call.keys = kv.keys;
  call.values = kv.values;
  call.positions = rows.positions.data;
  call.sequences = rows.sequences.data;
  call.page_table = rows.page_table;
  call.num_kv_heads = static_cast<int32_t>(heads.num_kv_heads);
  call.heads_per_kv = static_cast<int32_t>(heads.num_heads / heads.num_kv_heads);
  call.head_dim = static_cast<int32_t>(heads.head_dim);
  call.whole_pieces = heads.head_dim % 8 == 0 && by_fours(qkv.data, qkv.stride, 4) && by_fours(out.data, out.stride, 4, dtype_bytes(out.dtype));
  call.scale = rule.scale;
  call.softcap = rule.softcap;
  call.bias = rule.bias;
  call.bias_by_key = rule.bias_by_key;
  call.window = static_cast<int32_t>(rule.window);
  call.num_keys = static_cast<int32_t>(rule.num_keys);
  if (kv.dtype == DType::float32) return attend_float32(call, stream_);

  const Planned& planned = plans_[static_cast<size_t>(rows.plan)];
  call.plan = headers_.device + rows.plan;
  call.partials = partials_.reserve<float>(0);
  call.partial_stride = partial_stride(heads.head_dim);
  call.arrived = arrived_.reserve<unsigned>(0);
  const int64_t narrow = num_blocks(planned.num_narrow, heads.num_kv_heads, multiprocessors_);
  if (narrow > 0) attend_narrow(call, kv.dtype, narrow, stream_);
  if (planned.num_wide == 0) return;
  if (runs_hopper(heads.head_dim)) {
    const int64_t blocks = std::min(planned.num_wide * heads.num_kv_heads, std::max<int64_t>(1, multiprocessors_));
    attend_hopper(call, kv.dtype, kv.num_pages, blocks, stream_);
  } else {
    attend_wide(call, kv.dtype, num_blocks(planned.num_wide, heads.num_kv_heads, multiprocessors_), stream_);
  }
}

}  // namespace cuda
}  // namespace parley

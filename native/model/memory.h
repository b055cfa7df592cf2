// How much memory a worker takes, known before anything is loaded. The worker is built by the same figures.
#pragma once

#include "model/block.h"
#include "model/shard.h"

namespace parley {

// The instruction set that `options` mean on this machine.
Isa isa_of(const EngineOptions& options);

// The limits of a worker's stacks and ops; options.max_model_len is the one of the plan.
StackLimits stack_limits(const EngineOptions& options);
ScratchLimits scratch_limits(const RankModel& model, const EngineOptions& options);

// Threads of one of options.tensor_parallel_size ranks: its share, but one at least.
int64_t threads_of_rank(const EngineOptions& options, int64_t rank);

// Throws Error if the KV cache is too small for the shortest request, or if there are more ranks than the model can be shared out to.
MemoryPlan plan_memory(const ModelSpec& spec, const EngineOptions& options, const Backend& backend);

}  // namespace parley

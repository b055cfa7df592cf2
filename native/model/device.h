// On what a rank computes.
#pragma once

#include <memory>

#include "ops/backend.h"
#include "ops/collective.h"

namespace parley {

// The backend that options.device means for a rank: the CPU's kernels on `num_threads` threads, or a GPU's. Each rank has the next GPU; where
// there are fewer of them than ranks, some share one. Throws Error if there is no such device, or if it cannot do what the options ask of it.
std::unique_ptr<Backend> make_backend(const EngineOptions& options, int64_t rank, int num_threads);

// Where the ranks on those devices meet. Throws Error if they cannot.
std::unique_ptr<MeetingPlace> make_meeting_place(const EngineOptions& options);

}  // namespace parley

// Collectives of ranks that read each other's memory: those of the CPU, and such as share a GPU.
#pragma once

#include <memory>

#include "ops/collective.h"

namespace parley {

// The ranks' threads meet at each collective; what they show each other is read by their backends' ops.
std::unique_ptr<MeetingPlace> make_shared_place(int64_t num_ranks);

}  // namespace parley

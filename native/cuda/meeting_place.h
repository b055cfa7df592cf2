// Where ranks on GPUs meet.
#pragma once

#include <memory>

#include "ops/collective.h"

namespace parley {
namespace cuda {

// devices: of each rank. Where each has its own, kernels meet (peer_collective.h), in the host's memory if some GPU cannot read another's,
// as is usual without NVLink on cards that are not made for servers. Kernels of ranks that share a GPU must not wait for each
// other, for nothing says that they run at the same time: the ranks' threads meet, and events order the streams (ops/shared_collective.h).
// deterministic: without NCCL, which adds up in orders that depend on how much there is.
// Throws Error if GPUs that ranks share cannot read each other's memory, or if NCCL is there and cannot start.
std::unique_ptr<MeetingPlace> make_meeting_place(Span<const int> devices, bool deterministic);

}  // namespace cuda
}  // namespace parley

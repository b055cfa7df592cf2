// Collectives of ranks that have a GPU each: kernels that wait for each other, so that no host takes part and a graph of a step can hold them. What
// is large NCCL adds up, where it is there; to gather rows stays with the kernels, of which each reads no more than its rank wants.
#pragma once

#include <memory>

#include "cuda/nccl.h"
#include "ops/collective.h"

namespace parley {
namespace cuda {

constexpr int64_t kMostPeers = 16;

// Where the ranks leave for each other what they exchange: each in its GPU's memory, which all must be allowed to read, or in the host's,
// which all GPUs can read, over their bus.
enum class Exchange { device, host };

// devices: of each rank, at most kMostPeers, no two the same. nccl: of these, or null. Throws Error if there is no memory.
std::unique_ptr<MeetingPlace> make_peer_place(Span<const int> devices, Exchange exchange, std::unique_ptr<Nccl> nccl);

}  // namespace cuda
}  // namespace parley

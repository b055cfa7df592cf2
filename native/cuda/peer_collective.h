// Collectives of ranks that have a GPU each and read each other's memory: kernels that wait for each other, so that no host takes part and a
// graph of a step can hold them.
#pragma once

#include <memory>

#include "ops/collective.h"

namespace parley {
namespace cuda {

constexpr int64_t kMostPeers = 16;

// devices: of each rank, at most kMostPeers, no two the same, which may read each other's memory. Throws Error if there is no memory.
std::unique_ptr<MeetingPlace> make_peer_place(Span<const int> devices);

}  // namespace cuda
}  // namespace parley

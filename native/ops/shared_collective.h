// Collectives of ranks that read each other's memory: those of the CPU, and such as share a device.
#pragma once

#include <memory>
#include <vector>

#include "ops/backend.h"
#include "ops/collective.h"

namespace parley {

// Where the ranks meet; lives as long as one of its collectives.
class MeetingPlace;

std::shared_ptr<MeetingPlace> make_meeting_place(int64_t num_ranks);

// `backend`: the rank's own, with which it sums and copies.
std::unique_ptr<Collective> make_shared_collective(std::shared_ptr<MeetingPlace> place, int64_t rank, Backend& backend);

}  // namespace parley

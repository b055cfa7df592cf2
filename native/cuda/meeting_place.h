// Where ranks on GPUs meet.
#pragma once

#include <memory>

#include "ops/collective.h"

namespace parley {
namespace cuda {

// devices: of each rank; several ranks may have the same. Throws Error if these GPUs cannot read each other's memory.
std::unique_ptr<MeetingPlace> make_meeting_place(Span<const int> devices);

}  // namespace cuda
}  // namespace parley

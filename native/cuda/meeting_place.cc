#include "cuda/meeting_place.h"

#include <set>

#include "cuda/peer_collective.h"
#include "cuda/status.h"
#include "ops/shared_collective.h"

namespace parley {
namespace cuda {
namespace {

bool can_read(int reader, int owner) {
  int possible = 0;
  check(cudaDeviceCanAccessPeer(&possible, reader, owner), "whether GPUs read each other's memory");
  return possible != 0;
}

// From now on, for all of this process.
void let_read(int reader, int owner) {
  check(cudaSetDevice(reader), "choice of the GPU");
  const cudaError_t result = cudaDeviceEnablePeerAccess(owner, 0);
  if (result == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
  } else {
    check(result, "access to another GPU's memory");
  }
}

}  // namespace

std::unique_ptr<MeetingPlace> make_meeting_place(Span<const int> devices, bool deterministic) {
  const std::set<int> different(devices.begin(), devices.end());
  const bool all_different = different.size() == static_cast<size_t>(devices.size);
  const auto each_pair = [&](const auto& function) {
    for (const int reader : different) {
      for (const int owner : different) {
        if (reader != owner) function(reader, owner);
      }
    }
  };
  bool all_read = true;
  each_pair([&](int reader, int owner) {
    const bool possible = can_read(reader, owner);
    all_read = all_read && possible;
    check(possible || all_different, "GPU ", reader, " cannot read the memory of GPU ", owner, ", which ranks that share GPUs would have to");
  });
  if (all_read) each_pair(let_read);
  if (!all_different) return make_shared_place(devices.size);
  return make_peer_place(devices, all_read ? Exchange::device : Exchange::host, deterministic ? nullptr : Nccl::open(devices));
}

}  // namespace cuda
}  // namespace parley

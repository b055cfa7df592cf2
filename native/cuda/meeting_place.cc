#include "cuda/meeting_place.h"

#include <set>

#include "cuda/peer_collective.h"
#include "cuda/status.h"
#include "ops/shared_collective.h"

namespace parley {
namespace cuda {
namespace {

// From now on, for all of this process.
void let_read(int reader, int owner) {
  int possible = 0;
  check(cudaDeviceCanAccessPeer(&possible, reader, owner), "whether GPUs read each other's memory");
  check(possible != 0, "GPU ", reader, " cannot read the memory of GPU ", owner, ", which ranks on them would have to");
  check(cudaSetDevice(reader), "choice of the GPU");
  const cudaError_t result = cudaDeviceEnablePeerAccess(owner, 0);
  if (result == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
  } else {
    check(result, "access to another GPU's memory");
  }
}

}  // namespace

std::unique_ptr<MeetingPlace> make_meeting_place(Span<const int> devices) {
  for (const int reader : devices) {
    for (const int owner : devices) {
      if (reader != owner) let_read(reader, owner);
    }
  }
  const bool all_different = std::set<int>(devices.begin(), devices.end()).size() == static_cast<size_t>(devices.size);
  return all_different ? make_peer_place(devices) : make_shared_place(devices.size);
}

}  // namespace cuda
}  // namespace parley

#include "cuda/nccl.h"

#include <dlfcn.h>

#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda/status.h"

#if __has_include(<nccl.h>)
#include <nccl.h>
#endif

namespace parley {
namespace cuda {
namespace {

// What is used of nccl.h, as NCCL's user guide documents it.
using Result = int;
constexpr Result kSuccess = 0;
constexpr Result kUnhandledCudaError = 1;
constexpr Result kInProgress = 7;
constexpr int kFloat32 = 7;
constexpr int kSum = 0;

struct Communicator;

struct UniqueId {
  char internal[128];
};

// As of 2.14, which introduced it: `size` and `version` tell newer ones what they are given.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = 0;
};

#if __has_include(<nccl.h>)
static_assert(kSuccess == ncclSuccess && kUnhandledCudaError == ncclUnhandledCudaError && kInProgress == ncclInProgress);
static_assert(kFloat32 == ncclFloat32 && kSum == ncclSum && sizeof(UniqueId) == sizeof(ncclUniqueId));
static_assert(offsetof(Config, version) == offsetof(ncclConfig_t, version) && offsetof(Config, blocking) == offsetof(ncclConfig_t, blocking));
#ifdef NCCL_API_MAGIC  // older ones have the number in NCCL_CONFIG_INITIALIZER alone
static_assert(Config().magic == NCCL_API_MAGIC);
#endif
#endif

struct Library {
  Result (*ncclGetUniqueId)(UniqueId* id);
  Result (*ncclCommInitRankConfig)(Communicator** communicator, int num_ranks, UniqueId id, int rank, Config* config);
  Result (*ncclCommGetAsyncError)(Communicator* communicator, Result* state);
  Result (*ncclCommAbort)(Communicator* communicator);
  Result (*ncclGroupStart)();
  Result (*ncclGroupEnd)();
  Result (*ncclAllReduce)(const void* from, void* to, size_t count, int type, int operation, Communicator* communicator, cudaStream_t stream);
  const char* (*ncclGetErrorString)(Result result);
  const char* (*ncclGetLastError)(Communicator* communicator);
};

// Stays open: its kernels may be in use until the process ends.
bool open_library(Library& library) {
  void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!handle) return false;
#define X(name)                                                                  \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, #name)); \
  if (!library.name) return false;
  X(ncclGetUniqueId) X(ncclCommInitRankConfig) X(ncclCommGetAsyncError) X(ncclCommAbort) X(ncclGroupStart) X(ncclGroupEnd) X(ncclAllReduce)
  X(ncclGetErrorString) X(ncclGetLastError)
#undef X
  return true;
}

// Communicators that do not block: a call that has to wait for the other ranks says so, and can be given up.
class OpenNccl final : public Nccl {
 public:
  OpenNccl(const Library& library, Span<const int> devices)
      : library_(library), devices_(devices.begin(), devices.end()), ranks_(devices_.size()) {
    reset();
  }
  ~OpenNccl() override { abort(); }

  void all_reduce(int64_t index, float* data, int64_t count, cudaStream_t stream) override {
    Rank& rank = ranks_[static_cast<size_t>(index)];
    const auto start = [&](Communicator* communicator) {
      return library_.ncclAllReduce(data, data, static_cast<size_t>(count), kFloat32, kSum, communicator, stream);
    };
    Result state = with(rank, start);
    while (state == kInProgress) {
      std::this_thread::yield();
      state = with(rank, [&](Communicator* communicator) { return state_of(communicator); });
    }
    check_success(state, "sums");
  }

  std::string problem() const override {
    for (const Rank& rank : ranks_) {
      const Result state = with(rank, [&](Communicator* communicator) { return state_of(communicator); });
      if (state != kSuccess && state != kInProgress) return text(state, "sums");
    }
    return {};
  }

  void abort() override {
    for (Rank& rank : ranks_) {
      const std::lock_guard<std::mutex> lock(rank.mutex);
      if (rank.communicator != nullptr) library_.ncclCommAbort(rank.communicator);
      rank.communicator = nullptr;
    }
  }

  void reset() override {
    abort();
    try {
      connect();
    } catch (...) {
      abort();
      throw;
    }
  }

 private:
  struct Rank {
    mutable std::mutex mutex;  // of the communicator, which abort() frees
    Communicator* communicator = nullptr;
  };

  void connect() {
    UniqueId id;
    Config config;
    check_success(library_.ncclGetUniqueId(&id), "start");
    check_success(library_.ncclGroupStart(), "start");
    Result result = kSuccess;
    for (size_t r = 0; r < ranks_.size() && (result == kSuccess || result == kInProgress); ++r) {
      result = cudaSetDevice(devices_[r]) == cudaSuccess ? library_.ncclCommInitRankConfig(&ranks_[r].communicator, static_cast<int>(ranks_.size()), id,
                                                                                           static_cast<int>(r), &config)
                                                         : kUnhandledCudaError;
    }
    const Result end = library_.ncclGroupEnd();
    for (const Result one : {result, end}) {
      if (one != kInProgress) check_success(one, "start");
    }
    for (const Rank& rank : ranks_) {
      while ((result = state_of(rank.communicator)) == kInProgress) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      check_success(result, "start");
    }
  }

  // What `call` returns; success when all was given up.
  template <class Call>
  static Result with(const Rank& rank, const Call& call) {
    const std::lock_guard<std::mutex> lock(rank.mutex);
    return rank.communicator == nullptr ? kSuccess : call(rank.communicator);
  }

  Result state_of(Communicator* communicator) const {
    Result state = kSuccess;
    const Result result = library_.ncclCommGetAsyncError(communicator, &state);
    return result == kSuccess ? state : result;
  }

  std::string text(Result result, const char* what) const {
    const std::string detail = library_.ncclGetLastError(nullptr);
    return std::string("NCCL: ") + what + ": " + library_.ncclGetErrorString(result) + (detail.empty() ? "" : " (" + detail + ")") +
           "; NCCL_DEBUG=INFO makes it tell more";
  }

  void check_success(Result result, const char* what) const {
    if (result != kSuccess) fail(text(result, what));
  }

  const Library library_;
  const std::vector<int> devices_;
  std::vector<Rank> ranks_;
};

}  // namespace

std::unique_ptr<Nccl> Nccl::open(Span<const int> devices) {
  Library library;
  if (!open_library(library)) return nullptr;
  return std::make_unique<OpenNccl>(library, devices);
}

}  // namespace cuda
}  // namespace parley

#include <pthread.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "block.h"
#include "cuda_runtime.h"

using Work = std::function<cudaError_t()>;

struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};
struct CUstream_st {
  int device = 0;
  bool blocking = true;
  std::deque<Work> queue;
  uint64_t enqueued = 0;
  uint64_t done = 0;
  bool capturing = false;
  std::thread::id capturer;
  std::vector<Work> captured;
};
struct CUevent_st {
  int device = 0;
  cudaStream_t stream = nullptr;
  uint64_t number = 0;  // of the work in the stream after which it has happened
  std::chrono::steady_clock::time_point time;
};

namespace emulator {
namespace {

constexpr int kRuntimeVersion = 13000;
constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 256;  // what cudaMalloc promises

// Device memory: whole pages with a page behind them that cannot be touched, the allocation's end (but for alignment) at their end.
struct Allocation {
  char* pages;
  size_t page_bytes;
  size_t bytes;
  int device;
  bool open;
};

constexpr int kMostDevices = 64;
constexpr int kHost = -1;

// One that a thread may lock again and again, and leave to others in between.
class Mutex {
 public:
  void lock() {
    mutex_.lock();
    ++depth_;
  }
  void unlock() {
    --depth_;
    mutex_.unlock();
  }
  // As one that a GPU that hangs holds up: no processor is used.
  [[noreturn]] void leave_for_ever() {
    for (int i = depth_; i > 0; --i) unlock();
    for (;;) pause();
  }
  void let_others() {
    const int depth = depth_;
    for (int i = 0; i < depth; ++i) unlock();
    std::this_thread::sleep_for(std::chrono::microseconds(20));
    for (int i = 0; i < depth; ++i) lock();
  }

 private:
  std::recursive_mutex mutex_;
  int depth_ = 0;  // guarded by mutex_
};

struct Runtime {
  Mutex mutex;
  std::map<const char*, Allocation> allocations;
  std::map<const char*, size_t> pinned;
  std::set<cudaStream_t> streams;
  std::map<const void*, int> shared_limits;
  CUstream_st null_streams[kMostDevices];
  std::set<std::pair<int, int>> peers;  // device, and whose memory it may touch too
  size_t used[kMostDevices] = {};
  int running = kHost;  // the device whose work runs
  int num_running = 0;  // that are in run_until
  cudaError_t last_error = cudaSuccess;
  cudaError_t broken = cudaSuccess;  // what every call says from now on
  std::string failure;  // of the last kernel that failed
};

Runtime& runtime() {
  static Runtime* the_one = [] {  // outlives all that is destroyed at the end
    Runtime* made = new Runtime;
    for (int device = 0; device < kMostDevices; ++device) made->null_streams[device].device = device;
    return made;
  }();
  return *the_one;
}

// CUDA's choice of a device is the thread's. Not thread_local: all such memory of this library is shared memory of kernels (block.cc).
pthread_key_t device_key() {
  static const pthread_key_t the_one = [] {
    pthread_key_t key;
    pthread_key_create(&key, nullptr);
    return key;
  }();
  return the_one;
}
int current_device() { return static_cast<int>(reinterpret_cast<intptr_t>(pthread_getspecific(device_key()))); }
void choose_device(int device) { pthread_setspecific(device_key(), reinterpret_cast<void*>(static_cast<intptr_t>(device))); }

uint64_t setting(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

int num_devices() { return static_cast<int>(std::min<uint64_t>(setting("PARLEY_EMULATED_DEVICES", 1), kMostDevices)); }
bool is_device_number(int device) { return device >= 0 && device < num_devices(); }

using Lock = std::lock_guard<Mutex>;

size_t memory_limit() { return setting("PARLEY_EMULATED_MEMORY", uint64_t{4} << 30); }
int capability() { return static_cast<int>(setting("PARLEY_EMULATED_CAPABILITY", 86)); }
int driver_version() { return static_cast<int>(setting("PARLEY_EMULATED_DRIVER", kRuntimeVersion)); }

// What a test sees and sets while the process runs, in a file of numbers that PARLEY_EMULATED_CONTROL names.
struct Control {
  uint64_t allocations;      // of the device's and of pinned memory
  uint64_t copies_to_device;
  uint64_t copies_to_host;
  uint64_t launches;         // of kernels, those that are recorded among them
  uint64_t graphs;           // that were made
  uint64_t graph_launches;
  uint64_t fault;            // set by the test: one of these
};
constexpr uint64_t kNoMemory = 1;        // for allocations and graphs, as long as it is set
constexpr uint64_t kIllegalAddress = 2;  // the next work in a stream fails, and whatever is called after it
constexpr uint64_t kIdleKernels = 3;     // kernels are started and do nothing, as long as it is set
constexpr uint64_t kNoGraphs = 4;        // none can be made, as long as it is set
constexpr uint64_t kSlowGraphs = 5;      // whoever makes one waits, as long as it is set
constexpr uint64_t kHungGpu = 6;         // those of the last GPU never end, as long as it is set, and who waits for any waits for ever
constexpr uint64_t kHungMeetings = 7;    // the same of those that wait for another GPU's

volatile Control& control() {
  static volatile Control* the_one = [] {
    const char* path = std::getenv("PARLEY_EMULATED_CONTROL");
    const int file = path == nullptr ? -1 : open(path, O_RDWR);
    const int flags = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void* memory = mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, flags, file, 0);
    if (memory == MAP_FAILED) std::abort();
    if (file >= 0) close(file);
    return static_cast<volatile Control*>(memory);
  }();
  return *the_one;
}

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) runtime().last_error = error;
  return error;
}

bool anything_hangs() { return control().fault == kHungGpu || control().fault == kHungMeetings; }

bool may_touch(int device, int owner) { return device == owner || runtime().peers.count({device, owner}) > 0; }

// From now on the memory can be touched that the device may touch, or nothing of it.
void run_on(int device) {
  if (runtime().running == device) return;
  runtime().running = device;
  for (auto& [start, allocation] : runtime().allocations) {
    const bool open = may_touch(device, allocation.device);
    if (open != allocation.open) mprotect(allocation.pages, allocation.page_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
    allocation.open = open;
  }
}

// While there is one, somebody runs work.
struct Running {
  Running() { ++runtime().num_running; }
  ~Running() {
    if (--runtime().num_running == 0) run_on(kHost);
  }
};

// Runs the stream's work up to `number`; the first failure ends it. Work that waits for another stream's is tried again and again, with all other
// streams' in between; unless `patient`, once.
cudaError_t run_until(cudaStream_t stream, uint64_t number, bool patient = true) {
  if (control().fault == kIllegalAddress && stream->done < number) runtime().broken = cudaErrorIllegalAddress;
  if (runtime().broken != cudaSuccess) {
    stream->done += stream->queue.size();
    stream->queue.clear();
    return runtime().broken;
  }
  if (stream->done >= number) return cudaSuccess;
  const Running running;
  while (stream->done < number && !stream->queue.empty()) {
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    ++stream->done;
    run_on(stream->device);
    const cudaError_t error = work();
    if (error == cudaErrorNotReady) {
      stream->queue.push_front(work);
      --stream->done;
      if (!patient) return cudaSuccess;
      if (anything_hangs()) runtime().mutex.leave_for_ever();
      for (const cudaStream_t other : std::set<cudaStream_t>(runtime().streams)) {
        if (other != stream && runtime().streams.count(other) > 0) run_until(other, other->enqueued, false);
      }
      runtime().mutex.let_others();
    } else if (error != cudaSuccess) {
      stream->done += stream->queue.size();
      stream->queue.clear();
      return error;
    }
  }
  return cudaSuccess;
}

cudaStream_t real(cudaStream_t stream) { return stream ? stream : &runtime().null_streams[current_device()]; }

cudaError_t enqueue(cudaStream_t stream, Work work) {
  if (runtime().broken != cudaSuccess) return result(runtime().broken);
  stream = real(stream);
  if (stream->capturing) {
    stream->captured.push_back(std::move(work));
  } else {
    stream->queue.push_back(std::move(work));
    ++stream->enqueued;
  }
  return cudaSuccess;
}

bool is_null_stream(cudaStream_t stream) { return stream == &runtime().null_streams[stream->device]; }

// What a thread may not do while it captures, others may: cudaStreamCaptureModeThreadLocal.
bool captures() {
  for (const cudaStream_t stream : runtime().streams) {
    if (stream->capturing && stream->capturer == std::this_thread::get_id()) return true;
  }
  return false;
}

// The device whose memory that is, or kHost.
int owner_of(const void* at, size_t bytes) {
  const char* begin = static_cast<const char*>(at);
  auto next = runtime().allocations.upper_bound(begin);
  if (next == runtime().allocations.begin()) return kHost;
  const auto& [start, allocation] = *--next;
  return begin >= start && begin + bytes <= start + allocation.bytes ? allocation.device : kHost;
}

bool is_pinned(const void* at, size_t bytes) {
  const char* begin = static_cast<const char*>(at);
  auto next = runtime().pinned.upper_bound(begin);
  if (next == runtime().pinned.begin()) return false;
  const auto& [start, size] = *--next;
  return begin >= start && begin + bytes <= start + size;
}

}  // namespace

// The code is for compute capability 8.0 and up to 9.0, as native/cuda/Makefile makes it.
cudaError_t function_attributes(cudaFuncAttributes* attributes) {
  attributes->binaryVersion = attributes->ptxVersion = capability();
  return capability() <= 90 ? cudaSuccess : result(cudaErrorNoKernelImageForDevice);
}

cudaError_t set_function_attribute(const void* function, cudaFuncAttribute attribute, int value) {
  const Lock lock(runtime().mutex);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || value > most_shared(capability())) return result(cudaErrorInvalidValue);
  runtime().shared_limits[function] = value;
  return cudaSuccess;
}

cudaError_t launch(const void* function, const cudaLaunchConfig_t& config, std::function<void()> thread_body) {
  const Lock lock(runtime().mutex);
  const dim3 grid = config.gridDim;
  const dim3 block = config.blockDim;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || block.x == 0 ||
      block.y == 0 || block.z == 0 || block.z > 64 || uint64_t{block.x} * block.y * block.z > 1024) {
    return result(cudaErrorInvalidConfiguration);
  }
  const auto limit = runtime().shared_limits.find(function);
  const size_t most = limit == runtime().shared_limits.end() ? 48 * 1024 : static_cast<size_t>(limit->second);
  if (config.dynamicSmemBytes > most) return result(cudaErrorInvalidValue);
  if (real(config.stream)->device != current_device()) return result(cudaErrorInvalidResourceHandle);
  const int64_t shared_bytes = static_cast<int64_t>(config.dynamicSmemBytes);
  ++control().launches;
  const bool on_last = current_device() == num_devices() - 1;
  struct State {
    uint64_t next = 0;  // block
    bool waits = false;  // for another GPU's kernel
  };
  return enqueue(config.stream, [on_last, grid, block, shared_bytes, body = std::move(thread_body), state = std::make_shared<State>()] {
    if (control().fault == kHungGpu && on_last) return cudaErrorNotReady;
    if (control().fault == kHungMeetings && state->waits) return cudaErrorNotReady;
    if (control().fault == kIdleKernels) return cudaSuccess;
    const std::string failure = run_grid(grid, block, shared_bytes, body, state->next);
    state->waits = failure.empty() && state->next < uint64_t{grid.x} * grid.y * grid.z;
    if (state->waits) return cudaErrorNotReady;
    state->next = 0;  // a graph does it again
    if (failure.empty()) return cudaSuccess;
    runtime().failure = "emulated kernel failed: " + failure;
    return cudaErrorLaunchFailure;
  });
}

}  // namespace emulator

using namespace emulator;

// For libraries beside this one that have work for a stream (nccl/libnccl.cc).
extern "C" __attribute__((visibility("default"))) void emulator_enqueue(cudaStream_t stream, std::function<cudaError_t()> work) {
  const Lock lock(runtime().mutex);
  enqueue(stream, std::move(work));
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorPeerAccessAlreadyEnabled: return "cudaErrorPeerAccessAlreadyEnabled";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorNoKernelImageForDevice: return "cudaErrorNoKernelImageForDevice";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
  }
  return "unknown error";
}

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) return runtime().failure.c_str();
  return error == cudaErrorMemoryAllocation ? "out of memory" : cudaGetErrorName(error);
}

cudaError_t cudaGetLastError() {
  const Lock lock(runtime().mutex);
  const cudaError_t error = runtime().last_error;
  runtime().last_error = cudaSuccess;
  return error;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (driver_version() < kRuntimeVersion) return result(cudaErrorInsufficientDriver);
  *count = num_devices();
  return *count > 0 ? cudaSuccess : result(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
  if (!is_device_number(device)) return result(cudaErrorInvalidDevice);
  choose_device(device);
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device();
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* possible, int device, int peer) {
  if (!is_device_number(device) || !is_device_number(peer)) return result(cudaErrorInvalidDevice);
  const char* text = std::getenv("PARLEY_EMULATED_PEER_ACCESS");
  *possible = device != peer && !(text && std::strcmp(text, "0") == 0);
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  const Lock lock(runtime().mutex);
  int possible = 0;
  if (cudaDeviceCanAccessPeer(&possible, current_device(), peer) != cudaSuccess || !possible) return result(cudaErrorInvalidDevice);
  return runtime().peers.insert({current_device(), peer}).second ? cudaSuccess : result(cudaErrorPeerAccessAlreadyEnabled);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!is_device_number(device)) return result(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "emulated GPU");
  properties->totalGlobalMem = memory_limit();
  properties->major = capability() / 10;
  properties->minor = capability() % 10;
  properties->multiProcessorCount = 4;
  properties->maxThreadsPerMultiProcessor = 1536;
  properties->sharedMemPerMultiprocessor = 100 * 1024;
  properties->sharedMemPerBlockOptin = most_shared(capability());
  properties->l2CacheSize = 6 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!is_device_number(device)) return result(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrComputeCapabilityMajor: *value = capability() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = capability() % 10; break;
  }
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = driver_version();
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kRuntimeVersion;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(runtime().mutex);
  cudaError_t error = cudaStreamSynchronize(nullptr);
  for (const cudaStream_t stream : std::set<cudaStream_t>(runtime().streams)) {
    if (runtime().streams.count(stream) == 0 || stream->device != current_device()) continue;
    const cudaError_t one = cudaStreamSynchronize(stream);
    if (error == cudaSuccess) error = one;
  }
  return error;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const Lock lock(runtime().mutex);
  if (captures()) return result(cudaErrorStreamCaptureUnsupported);
  if (runtime().broken != cudaSuccess) return result(runtime().broken);
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (control().fault == kNoMemory) return result(cudaErrorMemoryAllocation);
  ++control().allocations;
  const size_t aligned = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (aligned < bytes || aligned > memory_limit() - std::min(memory_limit(), runtime().used[current_device()])) return result(cudaErrorMemoryAllocation);
  const size_t page_bytes = (aligned + kPage - 1) / kPage * kPage;
  void* pages = mmap(nullptr, page_bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return result(cudaErrorMemoryAllocation);
  char* start = static_cast<char*>(pages) + page_bytes - aligned;
  std::memset(start, 0xff, aligned);
  mprotect(static_cast<char*>(pages) + page_bytes, kPage, PROT_NONE);
  const bool open = may_touch(runtime().running, current_device());
  if (!open) mprotect(pages, page_bytes, PROT_NONE);
  runtime().allocations[start] = {static_cast<char*>(pages), page_bytes, bytes, current_device(), open};
  runtime().used[current_device()] += aligned;
  *memory = start;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  const Lock lock(runtime().mutex);
  if (!memory) return cudaSuccess;
  const auto found = runtime().allocations.find(static_cast<const char*>(memory));
  if (found == runtime().allocations.end()) return result(cudaErrorInvalidValue);
  const int owner = found->second.device;
  const int before = current_device();
  choose_device(owner);
  const cudaError_t error = cudaDeviceSynchronize();
  choose_device(before);
  runtime().used[owner] -= (found->second.bytes + kAlignment - 1) / kAlignment * kAlignment;
  munmap(found->second.pages, found->second.page_bytes + kPage);
  runtime().allocations.erase(found);
  return error;
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  const Lock lock(runtime().mutex);
  if (control().fault == kNoMemory) return result(cudaErrorMemoryAllocation);
  ++control().allocations;
  *memory = std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
  if (!*memory) return result(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xff, bytes);
  runtime().pinned[static_cast<const char*>(*memory)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  const Lock lock(runtime().mutex);
  if (!memory) return cudaSuccess;
  if (runtime().pinned.erase(static_cast<const char*>(memory)) == 0) return result(cudaErrorInvalidValue);
  const cudaError_t error = cudaDeviceSynchronize();
  std::free(memory);
  return error;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const Lock lock(runtime().mutex);
  *total_bytes = memory_limit();
  *free_bytes = *total_bytes - std::min(*total_bytes, runtime().used[current_device()]);
  return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (width == 0 || height == 0) return cudaSuccess;
  if (to_pitch < width || from_pitch < width) return result(cudaErrorInvalidValue);
  const size_t to_bytes = (height - 1) * to_pitch + width;
  const size_t from_bytes = (height - 1) * from_pitch + width;
  const int to_owner = owner_of(to, to_bytes);
  const int from_owner = owner_of(from, from_bytes);
  const bool to_device = to_owner != kHost;
  const bool from_device = from_owner != kHost;
  if (kind != cudaMemcpyDefault && (to_device != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) ||
                                    from_device != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice))) {
    return result(cudaErrorInvalidValue);
  }
  const auto copy = [=](const char* source, size_t pitch) {
    if (to_device || from_device) run_on(to_device ? to_owner : from_owner);
    for (size_t i = 0; i < height; ++i) std::memcpy(static_cast<char*>(to) + i * to_pitch, source + i * pitch, width);
    return cudaSuccess;
  };
  if (to_device && !from_device) ++control().copies_to_device;
  if (from_device && !to_device) ++control().copies_to_host;
  const char* source = static_cast<const char*>(from);
  if (!from_device && !is_pinned(from, from_bytes)) {  // copied before the call returns
    auto staged = std::make_shared<std::vector<char>>(source, source + from_bytes);
    return enqueue(stream, [=] { return copy(staged->data(), from_pitch); });
  }
  const cudaError_t error = enqueue(stream, [=] { return copy(source, from_pitch); });
  if (error != cudaSuccess) return error;
  if (!to_device && !is_pinned(to, to_bytes)) return cudaStreamSynchronize(stream);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(runtime().mutex);
  for (const cudaStream_t stream : std::set<cudaStream_t>(runtime().streams)) {
    if (runtime().streams.count(stream) > 0 && stream->blocking) cudaStreamSynchronize(stream);
  }
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return error == cudaSuccess ? cudaStreamSynchronize(nullptr) : error;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (bytes == 0) return cudaSuccess;
  const int owner = owner_of(to, bytes);
  if (owner == kHost) return result(cudaErrorInvalidValue);
  return enqueue(stream, [=] {
    run_on(owner);
    std::memset(to, value, bytes);
    return cudaSuccess;
  });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  const cudaError_t error = cudaMemsetAsync(to, value, bytes, nullptr);
  return error == cudaSuccess ? cudaStreamSynchronize(nullptr) : error;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const Lock lock(runtime().mutex);
  *stream = new CUstream_st;
  (*stream)->device = current_device();
  (*stream)->blocking = flags != cudaStreamNonBlocking;
  runtime().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (runtime().streams.count(stream) == 0) return result(cudaErrorInvalidResourceHandle);
  const cudaError_t error = cudaStreamSynchronize(stream);
  runtime().streams.erase(stream);
  delete stream;
  return error;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  stream = real(stream);
  if (stream->capturing) return result(cudaErrorStreamCaptureUnsupported);
  return result(run_until(stream, stream->enqueued));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (runtime().broken != cudaSuccess) return result(runtime().broken);
  return real(stream)->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(runtime().mutex);
  if (!event->stream) return cudaSuccess;
  return enqueue(stream, [other = event->stream, number = event->number] {
    return runtime().streams.count(other) ? run_until(other, number) : cudaSuccess;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  (*event)->device = current_device();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  const cudaError_t error = cudaEventSynchronize(event);  // the stream's work names it
  delete event;
  return error;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  stream = real(stream);
  if (stream->capturing) return result(cudaErrorStreamCaptureUnsupported);
  if (stream->device != event->device) return result(cudaErrorInvalidResourceHandle);
  enqueue(stream, [event] {
    event->time = std::chrono::steady_clock::now();
    return cudaSuccess;
  });
  event->stream = stream;
  event->number = stream->enqueued;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  const bool known = event->stream && (is_null_stream(event->stream) || runtime().streams.count(event->stream));
  return known ? result(run_until(event->stream, event->number)) : cudaSuccess;
}
// Does a piece of the stream's work if the event has not happened, so that asking often enough is waiting.
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  const bool known = event->stream && (is_null_stream(event->stream) || runtime().streams.count(event->stream));
  if (!known || event->stream->done >= event->number) return cudaSuccess;
  const cudaError_t error = result(run_until(event->stream, event->stream->done + 1, false));
  return error != cudaSuccess ? error : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Lock lock(runtime().mutex);
  if (!stream || stream->capturing || mode != cudaStreamCaptureModeThreadLocal) return result(cudaErrorStreamCaptureUnsupported);
  stream->capturing = true;
  stream->capturer = std::this_thread::get_id();
  stream->captured.clear();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(runtime().mutex);
  if (!stream || !stream->capturing) return result(cudaErrorInvalidValue);
  stream->capturing = false;
  *graph = new CUgraph_st{std::move(stream->captured)};
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  while (control().fault == kSlowGraphs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const Lock lock(runtime().mutex);
  if (control().fault == kNoMemory) return result(cudaErrorMemoryAllocation);
  if (control().fault == kNoGraphs) return result(cudaErrorInvalidValue);
  *executable = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
// The last that is done before one is launched, and so what is counted.
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  const Lock lock(runtime().mutex);
  ++control().graphs;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  ++control().graph_launches;
  for (const Work& work : executable->work) enqueue(stream, work);
  return cudaSuccess;
}

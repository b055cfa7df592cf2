// The emulator itself: what it computes, and that it finds what it says it finds.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "cuda/mma.h"

namespace {

using parley::check;
using parley::cuda::dynamic_shared;
using parley::cuda::launch;

int failures = 0;
void expect(bool condition, const char* what) {
  if (condition) return;
  std::printf("emulator: FAILED: %s\n", what);
  ++failures;
}

struct Buffer {
  float* data = nullptr;
  size_t bytes;
  explicit Buffer(size_t count) : bytes(count * 4) { check(cudaMalloc(&data, bytes), "memory"); }
  ~Buffer() { cudaFree(data); }
  std::vector<float> read() const {
    std::vector<float> host(bytes / 4);
    check(cudaMemcpy(host.data(), data, bytes, cudaMemcpyDeviceToHost), "download");
    return host;
  }
  void write(const std::vector<float>& host) { check(cudaMemcpy(data, host.data(), bytes, cudaMemcpyHostToDevice), "upload"); }
};

// What the kernel's failure says, "" if it ran.
template <class... Parameters, class... Arguments>
std::string failure_of(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared, Arguments... arguments) {
  try {
    launch(kernel, grid, block, shared, nullptr, arguments...);
    check(cudaDeviceSynchronize(), "kernel");
  } catch (const parley::Error& error) {
    return error.what();
  }
  return "";
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// out[block] = sum of x's n numbers of the block.
__global__ void sum_rows(const float* x, float* out, int n) {
  __shared__ float partial[32];
  float total = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) total += x[static_cast<int>(blockIdx.x) * n + i];
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) partial[warp] = total;
  __syncthreads();
  if (warp > 0) return;
  total = lane < static_cast<int>(blockDim.x) / 32 ? partial[lane] : 0;
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
  if (lane == 0) out[blockIdx.x] = total;
}

__global__ void read_fresh_shared(float* out) {
  __shared__ float fixed[4];
  if (!out) fixed[0] = 1;  // else the compiler knows it
  out[0] = fixed[0];
  out[1] = dynamic_shared<float>()[0];
}

__global__ void barrier_of_half(float* out) {
  if (threadIdx.x < 16) __syncwarp();
  if (threadIdx.x >= 16) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void two_barriers(float* out) {
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void shuffle_from_nobody(float* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);
}

// No barrier between the writer and the readers.
__global__ void race(float* out) {
  __shared__ float number;
  if (threadIdx.x == 0) number = 3;
  out[blockIdx.x * blockDim.x + threadIdx.x] = number;
}

// D = A B^T with A [16, 16], B [8, 16] by way of cp.async, ldmatrix and mma; `wait` or read what has not come.
template <class Number>
__global__ void multiply(const Number* a, const Number* b, float* d, bool wait) {
  Number* tile = dynamic_shared<Number>();  // A, then B
  const int lane = static_cast<int>(threadIdx.x);
  parley::cuda::cp_async_16(tile + lane * 8, a + lane * 8);
  if (lane < 16) parley::cuda::cp_async_16(tile + 256 + lane * 8, b + lane * 8);
  parley::cuda::cp_async_commit();
  if (wait) parley::cuda::cp_async_wait<0>();
  __syncwarp();
  uint32_t left[4], right[2];
  parley::cuda::ldmatrix_x4(left, tile + lane % 16 * 16 + lane / 16 * 8);
  parley::cuda::ldmatrix_x2(right, tile + 256 + lane % 8 * 16 + lane / 8 % 2 * 8);
  float total[4] = {0, 0, 0, 0};
  parley::cuda::mma_m16n8k16<Number>(total, left, right);
  for (int r = 0; r < 4; ++r) d[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = total[r];
}

void test_mma() {
  std::vector<uint16_t> a(256), b(128);
  for (size_t i = 0; i < a.size(); ++i) a[i] = parley::float_to_fp16(static_cast<float>(static_cast<int>(i * 7 % 23) - 11));
  for (size_t i = 0; i < b.size(); ++i) b[i] = parley::float_to_fp16(static_cast<float>(static_cast<int>(i * 5 % 17) - 8));
  Buffer left(128), right(64), out(128);
  check(cudaMemcpy(left.data, a.data(), 512, cudaMemcpyHostToDevice), "a");
  check(cudaMemcpy(right.data, b.data(), 256, cudaMemcpyHostToDevice), "b");
  const auto run = [&](bool wait) {
    return failure_of(multiply<__half>, 1, 32, 768, reinterpret_cast<const __half*>(left.data),
                      reinterpret_cast<const __half*>(right.data), out.data, wait);
  };
  expect(run(true) == "", "mma runs");
  const std::vector<float> d = out.read();
  bool same = true;
  for (size_t row = 0; row < 16; ++row) {
    for (size_t col = 0; col < 8; ++col) {
      float total = 0;
      for (size_t k = 0; k < 16; ++k) total += parley::fp16_to_float(a[row * 16 + k]) * parley::fp16_to_float(b[col * 16 + k]);
      same = same && total == d[row * 8 + col];
    }
  }
  expect(same, "mma multiplies");
  expect(run(false) == "" && std::isnan(out.read()[0]), "a missing cp_async_wait shows");
}

void test_streams() {
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  Buffer x(64), out(1);
  float* host;
  check(cudaHostAlloc(&host, 256, cudaHostAllocDefault), "pinned");
  for (int i = 0; i < 64; ++i) host[i] = 1;
  check(cudaMemcpyAsync(x.data, host, 256, cudaMemcpyHostToDevice, stream), "upload");
  host[0] = 5;  // too early: the copy has not run
  check(cudaStreamSynchronize(stream), "wait");
  expect(x.read()[0] == 5, "a copy from pinned memory runs no sooner than somebody waits");

  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  check(cudaMemcpyAsync(x.data, host, 256, cudaMemcpyHostToDevice, stream), "upload");
  launch(sum_rows, 1, 32, 0, stream, x.data, out.data, 64);
  void* more;
  expect(cudaMalloc(&more, 4) == cudaErrorStreamCaptureUnsupported, "no allocation in a capture");
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamEndCapture(stream, &graph), "end of capture");
  check(cudaGraphInstantiate(&executable, graph, 0), "graph");
  check(cudaGraphDestroy(graph), "graph");
  for (float first : {10.0f, 20.0f}) {
    host[0] = first;
    check(cudaGraphLaunch(executable, stream), "graph");
    check(cudaStreamSynchronize(stream), "wait");
    expect(out.read()[0] == first + 63, "a graph runs what was captured, with the numbers of now");
  }
  check(cudaGraphExecDestroy(executable), "graph");
  check(cudaStreamDestroy(stream), "stream");
  check(cudaFreeHost(host), "pinned");
}

// Two GPUs: each has its streams, its events and its memory, which the other may be allowed to touch.
void test_devices() {
  setenv("PARLEY_EMULATED_DEVICES", "2", 1);
  Buffer x(64);
  x.write(std::vector<float>(64, 1));
  check(cudaSetDevice(1), "choice of the GPU");
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
  Buffer out(1);
  expect(cudaDeviceEnablePeerAccess(0, 0) == cudaSuccess, "a GPU may read another's memory");
  expect(cudaDeviceEnablePeerAccess(0, 0) == cudaErrorPeerAccessAlreadyEnabled, "which is allowed once");
  launch(sum_rows, 1, 64, 0, stream, x.data, out.data, 64);
  check(cudaEventRecord(event, stream), "event");
  check(cudaSetDevice(0), "choice of the GPU");
  expect(cudaEventRecord(event, nullptr) == cudaErrorInvalidResourceHandle, "an event of another GPU is refused");
  bool refused = false;
  try {
    launch(sum_rows, 1, 64, 0, stream, x.data, out.data, 64);
  } catch (const parley::Error&) {
    refused = true;
  }
  expect(refused, "a stream of another GPU is refused");
  check(cudaStreamWaitEvent(nullptr, event, 0), "wait for another GPU");
  check(cudaStreamSynchronize(nullptr), "wait");
  expect(cudaEventQuery(event) == cudaSuccess, "a stream waits for another GPU's");
  expect(out.read()[0] == 64, "a GPU reads another's memory");
  check(cudaEventDestroy(event), "event");
  check(cudaStreamDestroy(stream), "stream");
}

__global__ void load_four(const float* x, float* out) { *out = reinterpret_cast<const float4*>(x)->w; }

}  // namespace

// With the argument `unaligned` a kernel loads from an address that is not aligned, which must be the end of the process.
int main(int argc, char**) {
  Buffer x(8 * 1000), out(8 * 128);
  if (argc > 1) {
    failure_of(load_four, 1, 1, 0, x.data + 1, out.data);
    return 0;
  }
  expect(std::isnan(x.read()[5]), "fresh memory is no number");
  std::vector<float> numbers(8 * 1000);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i % 10);
  x.write(numbers);
  expect(failure_of(sum_rows, 8, 128, 0, x.data, out.data, 1000) == "", "sum_rows runs");
  expect(out.read()[7] == 4500, "sum_rows sums");

  expect(failure_of(read_fresh_shared, 1, 1, 1024, out.data) == "", "read_fresh_shared runs");
  expect(std::isnan(out.read()[0]) && std::isnan(out.read()[1]), "fresh shared memory is no number");
  expect(has(failure_of(barrier_of_half, 1, 32, 0, out.data), "wait for ever"), "a deadlock is found");
  expect(has(failure_of(two_barriers, 1, 32, 0, out.data), "__syncthreads of"), "two different barriers are found");
  expect(has(failure_of(shuffle_from_nobody, 1, 32, 0, out.data), "takes no part"), "a shuffle from nobody is found");
  expect(has(failure_of(sum_rows, 0, 32, 0, x.data, out.data, 1), "cudaErrorInvalidConfiguration"), "an empty grid is refused");
  expect(has(failure_of(sum_rows, 1, 32, 100 * 1024, x.data, out.data, 1), "cudaErrorInvalidValue"), "too much shared memory is refused");
  expect(failure_of(race, 16, 64, 0, out.data) == "", "race runs");
  bool raced = false;
  for (const float number : out.read()) raced = raced || !(number == 3);
  expect(raced, "a missing barrier shows");
  void* memory;
  expect(cudaMalloc(&memory, size_t{1} << 40) == cudaErrorMemoryAllocation, "too much memory is refused");
  test_mma();
  test_streams();
  test_devices();
  if (failures == 0) std::printf("emulator: ok\n");
  return failures > 0;
}

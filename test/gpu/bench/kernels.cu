// What one GPU can do, and how near linear comes to it.
//
//   kernels [--bytes N] [--size N] [--tokens 1,8,...] [--models N] [--rows DIVISOR] [--only rates|linear|attention]
//
// Prints the rate of reading N bytes (4 GiB; 100 kB on the emulator) and of multiplying matrices of N x N (8192; 64), then for the weights of five models the time of
// linear and its fraction of the floor max(bytes of the weight / rate of reading, operations / rate of multiplying), both as measured. A
// table for linear as --deterministic runs it, and one with cuBLASLt where it is. And for the heads of these models the time of attention,
// of decode steps and of prompts, with the bytes of the keys and values. For a quick look: the first models, and a part of the weights' rows.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda/attention.h"
#include "cuda/launch.h"
#include "cuda/linear.h"
#include "cuda/memory.h"

namespace {

using namespace parley;
using namespace parley::cuda;

constexpr int kThreads = 256;

// Reads `count` pieces of 16 bytes and keeps nothing but the promise that it did.
__global__ void __launch_bounds__(kThreads) read_kernel(const uint4* pieces, int64_t count, unsigned* out) {
  constexpr int kAtOnce = 8;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  unsigned mixed = 0;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (; i + (kAtOnce - 1) * step < count; i += kAtOnce * step) {
    uint4 read[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) read[j] = __ldcs(pieces + i + j * step);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) mixed ^= read[j].x ^ read[j].y ^ read[j].z ^ read[j].w;
  }
  for (; i < count; i += step) mixed ^= pieces[i].x;
  if (mixed == 0x5eed5eed) *out = mixed;  // as good as never, but the compiler does not know
}

// 16-bit numbers of both signs with magnitudes from 2^-7 to 2^-3, whichever of the two types reads them as its own: random mantissas and
// nearly random signs cost the GPU the power that real weights do.
__global__ void __launch_bounds__(kThreads) fill_kernel(uint16_t* numbers, int64_t count, DType dtype) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  uint64_t bits = static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u;  // splitmix64
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
  bits ^= bits >> 31;
  const unsigned random = static_cast<unsigned>(bits);
  const unsigned sign = random & 0x8000u;
  const unsigned exponent = (random >> 16) & 3u;
  numbers[i] = static_cast<uint16_t>(dtype == DType::float16 ? sign | (8u + exponent) << 10 | (random & 0x3ffu)
                                                             : sign | (120u + exponent) << 7 | (random & 0x7fu));
}

__global__ void __launch_bounds__(kThreads) widen_kernel(float* out, const uint16_t* numbers, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) out[i] = static_cast<float>(static_cast<int16_t>(numbers[i])) / 32768.0f;
}

dim3 blocks_for(int64_t count) { return dim3(static_cast<unsigned>(ceil_div(count, int64_t{kThreads}))); }

// Owns the stream and the events that time what is done in it.
class Timer {
 public:
  Timer() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    check(cudaEventCreateWithFlags(&begin_, cudaEventDefault), "event");
    check(cudaEventCreateWithFlags(&end_, cudaEventDefault), "event");
  }
  ~Timer() {
    cudaEventDestroy(end_);
    cudaEventDestroy(begin_);
    cudaStreamDestroy(stream_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  cudaStream_t stream() const { return stream_; }

  // Seconds of one of `calls` calls of call(i), which are recorded into a graph, so that the host's time for starting kernels is not
  // measured: the median of 7 replays behind 2 that warm up.
  double seconds(int calls, const std::function<void(int)>& call) const {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    call(0);  // takes the memory that it needs
    check(cudaStreamSynchronize(stream_), "a first call");
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording");
    for (int i = 0; i < calls; ++i) call(i);
    check(cudaStreamEndCapture(stream_, &graph), "recording");
    check(cudaGraphInstantiate(&executable, graph, 0), "a graph");
    std::vector<float> times;
    for (int i = 0; i < 9; ++i) {
      check(cudaEventRecord(begin_, stream_), "event");
      check(cudaGraphLaunch(executable, stream_), "a graph's start");
      check(cudaEventRecord(end_, stream_), "event");
      check(cudaEventSynchronize(end_), "the work of the GPU");
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin_, end_), "time");
      if (i >= 2) times.push_back(milliseconds);
    }
    check(cudaGraphExecDestroy(executable), "a graph");
    check(cudaGraphDestroy(graph), "a graph");
    std::nth_element(times.begin(), times.begin() + 3, times.end());
    return times[3] * 1e-3 / calls;
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

struct Model {
  const char* name;
  int64_t hidden;
  int64_t vocab;
  int64_t num_heads;
};
constexpr Model kModels[] = {{"Pythia-410M", 1024, 50304, 16},
                             {"Pythia-1.4B", 2048, 50304, 16},
                             {"Pythia-6.9B", 4096, 50432, 32},
                             {"GPT-J-6B", 4096, 50400, 16},
                             {"GPT-NeoX-20B", 6144, 50432, 64}};

struct Settings {
#ifdef PARLEY_CUDA_EMULATED
  int64_t bytes = 100000;
  int64_t size = 64;
#else
  int64_t bytes = int64_t{4} << 30;
  int64_t size = 8192;
#endif
  int64_t models = static_cast<int64_t>(std::size(kModels));
  int64_t divisor = 1;
  std::vector<int64_t> tokens = {1, 8, 32, 64, 128, 512, 2048};
  std::string only;  // empty: all
};

Settings read_settings(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    check(i + 1 < argc, name, ": expected a value behind it");
    if (name == "--only") {
      settings.only = argv[i + 1];
      check(settings.only == "rates" || settings.only == "linear" || settings.only == "attention",
            "--only: expected rates, linear or attention, got ", settings.only);
      continue;
    }
    char* rest = argv[i + 1];
    std::vector<int64_t> numbers;
    do {
      numbers.push_back(std::strtoll(rest, &rest, 10));
      check(numbers.back() > 0, name, ": expected a positive number, got ", argv[i + 1]);
    } while (*rest++ == ',');
    if (name == "--bytes") settings.bytes = numbers[0];
    else if (name == "--size") settings.size = numbers[0];
    else if (name == "--models") settings.models = std::min(settings.models, numbers[0]);
    else if (name == "--rows") settings.divisor = numbers[0];
    else if (name == "--tokens") settings.tokens = numbers;
    else fail(name, ": expected --bytes, --size, --tokens, --models, --rows or --only");
  }
  return settings;
}

// Random weights, cut out of one piece of memory that no cache holds: call i uses another part of it than call i - 1.
class WeightPool {
 public:
  WeightPool(const Timer& timer, int64_t numbers, DType dtype) : numbers_(numbers), dtype_(dtype) {
    data_ = memory_.reserve<uint16_t>(numbers);
    launch(fill_kernel, blocks_for(numbers), dim3(kThreads), 0, timer.stream(), data_, numbers, dtype);
  }
  PackedWeight weight(int64_t rows, int64_t cols, int call) const {
    const int64_t size = rows * row_pitch(cols);
    return {data_ + call % std::max<int64_t>(1, numbers_ / size) * size, dtype_, rows, cols};
  }

 private:
  DeviceScratch memory_;
  uint16_t* data_;
  int64_t numbers_;
  DType dtype_;
};

struct Rates {
  double bytes;       // a second
  double operations;  // a second
};

void print_linear(const Timer& timer, const Settings& settings, Linear& linear, const WeightPool& pool, const float* x, float* out,
                  const Rates& rates, const char* title) {
  std::printf("\nlinear, float16 weights, %s: microseconds (fraction of the floor) by tokens\n%-13s %-20s", title, "", "");
  for (const int64_t tokens : settings.tokens) std::printf(" %15lld", static_cast<long long>(tokens));
  std::printf("\n");
  for (int64_t m = 0; m < settings.models; ++m) {
    const Model& model = kModels[m];
    const struct {
      const char* name;
      int64_t rows, cols;
      Epilogue epilogue;
    } weights[] = {{"qkv", 3 * model.hidden, model.hidden, Epilogue::store},
                   {"attention out", model.hidden, model.hidden, Epilogue::accumulate},
                   {"mlp up", 4 * model.hidden, model.hidden, Epilogue::gelu},
                   {"mlp down", model.hidden, 4 * model.hidden, Epilogue::accumulate},
                   {"unembedding", model.vocab, model.hidden, Epilogue::store}};
    for (const auto& weight : weights) {
      const int64_t rows = ceil_div(weight.rows, settings.divisor);
      std::printf("%-13s %6lld x %-6lld %-13s", model.name, static_cast<long long>(rows), static_cast<long long>(weight.cols), weight.name);
      for (const int64_t tokens : settings.tokens) {
        const double bytes = 2.0 * static_cast<double>(rows * weight.cols);
        const double operations = 2.0 * static_cast<double>(rows * weight.cols * tokens);
        const double floor = std::max(bytes / rates.bytes, operations / rates.operations);
        const int calls = static_cast<int>(std::clamp(2e-3 / floor, 1.0, 20.0));
        const double seconds = timer.seconds(calls, [&](int call) {
          const Product product{{out, tokens, rows}, {x, tokens, weight.cols}, pool.weight(rows, weight.cols, call), {}, weight.epilogue};
          linear.run({&product, 1});
        });
        std::printf(" %8.1f (%3.0f%%)", seconds * 1e6, 100 * floor / seconds);
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}

// `rows` last rows of each of `sequences` sequences of `context` tokens, whose keys and values lie in pages in random order.
class AttentionCase {
 public:
  AttentionCase(const Timer& timer, const Model& model, int64_t multiprocessors, int64_t sequences, int64_t rows, int64_t context)
      : heads_{model.num_heads, model.num_heads, model.hidden / model.num_heads, 0}, attention_(timer.stream(), multiprocessors),
        block_(timer.stream()), num_pages_(sequences * ceil_div(context, kPageSize)) {
    const int64_t max_pages = ceil_div(context, kPageSize);
    std::vector<int32_t> pages(static_cast<size_t>(num_pages_));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937());
    for (int64_t s = 0; s < sequences; ++s) {
      for (int64_t i = 0; i < rows; ++i) {
        host_positions_.push_back(static_cast<int32_t>(context - rows + i));
        host_sequences_.push_back(static_cast<int32_t>(s));
      }
    }
    const auto num_rows = static_cast<int64_t>(host_positions_.size());
    rows_.positions = {upload(positions_, host_positions_), num_rows};
    rows_.sequences = {upload(sequences_, host_sequences_), num_rows};
    rows_.page_table = {upload(pages_, pages), sequences, max_pages};
    rows_.host_positions = host_positions_.data();
    rows_.host_sequences = host_sequences_.data();
    ScratchLimits limits{};
    limits.rows = num_rows;
    limits.sequences = sequences;
    limits.context = max_pages * kPageSize;
    limits.num_heads = heads_.num_heads;
    limits.head_dim = heads_.head_dim;
    limits.plans = 1;
    attention_.reserve(limits);
    block_.reserve(attention_.block_bytes(limits));
    block_.begin();
    attention_.begin_block(block_);
    rule_.scale = 0.1f;
    attention_.plan(rows_, heads_, rule_, block_);
    block_.send();
    check(cudaStreamSynchronize(timer.stream()), "a plan");
  }

  // Of keys and values together.
  int64_t layer_numbers() const { return 2 * num_pages_ * kPageSize * heads_.kv_size(); }
  HeadLayout heads() const { return heads_; }

  // kv: keys, then values, of all pages.
  void run(float* out, const float* qkv, uint16_t* kv) {
    const int64_t rows = rows_.positions.size;
    attention_.run({out, rows, heads_.query_size()}, {qkv, rows, heads_.qkv_size()},
                   {kv, kv + layer_numbers() / 2, DType::float16, num_pages_}, rows_, heads_, rule_);
  }

 private:
  static int32_t* upload(DeviceScratch& memory, const std::vector<int32_t>& numbers) {
    int32_t* device = memory.reserve<int32_t>(static_cast<int64_t>(numbers.size()));
    check(cudaMemcpy(device, numbers.data(), numbers.size() * sizeof(int32_t), cudaMemcpyHostToDevice), "a list");
    return device;
  }

  HeadLayout heads_;
  Attention attention_;
  StepBlock block_;
  int64_t num_pages_;
  std::vector<int32_t> host_positions_, host_sequences_;
  DeviceScratch positions_, sequences_, pages_;
  AttentionRows rows_;
  AttentionRule rule_{};
};

// pool: where the keys and values are, of as many layers as have room, so that no cache holds them.
void print_attention(const Timer& timer, const Settings& settings, int64_t multiprocessors, uint16_t* pool, int64_t pool_numbers,
                     const Rates& rates) {
  struct Shape {
    int64_t sequences, rows, context;
  };
  const Shape shapes[] = {{1, 1, 256},   {8, 1, 256},    {32, 1, 256},    {128, 1, 256},   {1, 1, 1024},    {8, 1, 1024},
                          {32, 1, 1024}, {128, 1, 1024}, {1, 512, 512}, {1, 2048, 2048}};
  DeviceScratch qkv_memory, out_memory;
  std::printf("\nattention, float16 pages: microseconds (fraction of the floor) by sequences x rows each of tokens\n%-13s %-9s", "", "");
  for (const Shape& shape : shapes) {
    char name[40];
    std::snprintf(name, sizeof name, "%lld x %lld of %lld", static_cast<long long>(shape.sequences), static_cast<long long>(shape.rows),
                  static_cast<long long>(shape.context));
    std::printf(" %16s", name);
  }
  std::printf("\n");
  for (int64_t m = 0; m < settings.models; ++m) {
    const Model& model = kModels[m];
    std::printf("%-13s %3lld x %-3lld", model.name, static_cast<long long>(model.num_heads),
                static_cast<long long>(model.hidden / model.num_heads));
    for (const Shape& shape : shapes) {
      AttentionCase one(timer, model, multiprocessors, shape.sequences, shape.rows, shape.context);
      const int64_t layers = pool_numbers / one.layer_numbers();
      if (layers == 0) {
        std::printf(" %16s", "no room");
        continue;
      }
      const HeadLayout heads = one.heads();
      const int64_t rows = shape.sequences * shape.rows, qkv_numbers = rows * heads.qkv_size();
      float* qkv = qkv_memory.reserve<float>(qkv_numbers);
      check(cudaMemsetAsync(qkv, 0, static_cast<size_t>(qkv_numbers) * sizeof(float), timer.stream()), "queries");
      const int64_t random_numbers = std::min(qkv_numbers, pool_numbers);
      launch(widen_kernel, blocks_for(random_numbers), dim3(kThreads), 0, timer.stream(), qkv, static_cast<const uint16_t*>(pool), random_numbers);
      float* out = out_memory.reserve<float>(rows * heads.query_size());
      const double keys = static_cast<double>(shape.context) - 0.5 * static_cast<double>(shape.rows - 1);  // that a row sees
      const double operations = 4.0 * static_cast<double>(rows * model.hidden) * keys;
      const double floor = std::max(2.0 * static_cast<double>(one.layer_numbers()) / rates.bytes, operations / rates.operations);
      const int calls = static_cast<int>(std::clamp(1e-3 / floor, 1.0, 50.0));
      const double seconds = timer.seconds(calls, [&](int call) { one.run(out, qkv, pool + call % layers * one.layer_numbers()); });
      std::printf(" %9.1f (%3.0f%%)", seconds * 1e6, 100 * floor / seconds);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

void run(const Settings& settings) {
  int device = 0;
  cudaDeviceProp properties;
  check(cudaGetDevice(&device), "the GPU");
  check(cudaGetDeviceProperties(&properties, device), "the GPU's properties");
  std::printf("%s, compute capability %d.%d, %d multiprocessors\n", properties.name, properties.major, properties.minor,
              properties.multiProcessorCount);
  const Timer timer;
  Rates rates{};

  {
    DeviceScratch memory, result;
    const int64_t pieces = settings.bytes / 16;
    uint16_t* numbers = memory.reserve<uint16_t>(pieces * 8);
    unsigned* out = result.reserve<unsigned>(1);
    launch(fill_kernel, blocks_for(pieces * 8), dim3(kThreads), 0, timer.stream(), numbers, pieces * 8, DType::float16);
    const dim3 grid(static_cast<unsigned>(properties.multiProcessorCount) * 8);
    const double seconds = timer.seconds(1, [&](int) {
      launch(read_kernel, grid, dim3(kThreads), 0, timer.stream(), reinterpret_cast<const uint4*>(numbers), pieces, out);
    });
    rates.bytes = static_cast<double>(pieces * 16) / seconds;
    std::printf("reading %.3f GB: %.1f GB/s\n", static_cast<double>(pieces * 16) * 1e-9, rates.bytes * 1e-9);
  }

  const int64_t most_tokens = std::max(*std::max_element(settings.tokens.begin(), settings.tokens.end()), settings.size);
  int64_t pool_numbers = settings.size * row_pitch(settings.size), most_rows = settings.size, most_cols = settings.size;
  for (int64_t m = 0; m < settings.models; ++m) {
    const Model& model = kModels[m];
    const int64_t rows = ceil_div(std::max(model.vocab, 4 * model.hidden), settings.divisor);
    most_rows = std::max(most_rows, rows);
    most_cols = std::max(most_cols, 4 * model.hidden);
    pool_numbers = std::max(pool_numbers, rows * 4 * model.hidden);
  }
  const WeightPool pool(timer, pool_numbers, DType::float16);
  DeviceScratch x_memory, out_memory;
  const int64_t x_numbers = std::min(most_tokens * most_cols, pool_numbers);
  float* x = x_memory.reserve<float>(most_tokens * most_cols);
  launch(widen_kernel, blocks_for(x_numbers), dim3(kThreads), 0, timer.stream(), x,
         static_cast<const uint16_t*>(pool.weight(1, 64, 0).data), x_numbers);
  check(cudaMemsetAsync(x + x_numbers, 0, static_cast<size_t>(most_tokens * most_cols - x_numbers) * sizeof(float), timer.stream()), "x");
  float* out = out_memory.reserve<float>(most_tokens * most_rows);
  check(cudaMemsetAsync(out, 0, static_cast<size_t>(most_tokens * most_rows) * sizeof(float), timer.stream()), "out");

  Linear own(timer.stream(), properties.multiProcessorCount, true);
  Linear fastest(timer.stream(), properties.multiProcessorCount, false);
  const auto rate = [&](Linear& linear) {
    const int64_t n = settings.size;
    const Product square{{out, n, n}, {x, n, n}, pool.weight(n, n, 0), {}, Epilogue::store};
    const double seconds = timer.seconds(2, [&](int) { linear.run({&square, 1}); });
    return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / seconds;
  };
  const double own_rate = rate(own);
  rates.operations = own_rate;
  std::printf("multiplying %lld x %lld, float16, rounding of the tokens included: own kernel %.1f TFLOP/s", static_cast<long long>(settings.size),
              static_cast<long long>(settings.size), own_rate * 1e-12);
  if (fastest.has_library()) {
    const double library_rate = rate(fastest);
    rates.operations = std::max(own_rate, library_rate);
    std::printf(", cuBLASLt %.1f TFLOP/s\n", library_rate * 1e-12);
  } else {
    std::printf("; no cuBLASLt here\n");
  }
  if (settings.only == "rates") return;
  if (settings.only != "linear") {
    DeviceScratch pages;
    const int64_t numbers = settings.bytes / 2;
    uint16_t* kv = pages.reserve<uint16_t>(numbers);
    launch(fill_kernel, blocks_for(numbers), dim3(kThreads), 0, timer.stream(), kv, numbers, DType::float16);
    print_attention(timer, settings, properties.multiProcessorCount, kv, numbers, rates);
  }
  if (settings.only == "attention") return;
  print_linear(timer, settings, own, pool, x, out, rates, "own kernels (--deterministic)");
  if (fastest.has_library()) print_linear(timer, settings, fastest, pool, x, out, rates, "cuBLASLt above 64 tokens");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(read_settings(argc, argv));
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

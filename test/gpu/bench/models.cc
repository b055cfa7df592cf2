// Steps of whole models with random weights, without Node: what one rank or several take for them on this machine, beside the floors of its
// memory and its arithmetic.
//
//   models --gbps N --tflops N [--device cpu|cuda] [--ranks N] [--kv-gb N] [--threads N] [--folder PATH] [--models Pythia-410M,...]
//          [--contexts 256,1024] [--batches 1,8,32,64,128] [--prompts 512,2048] [--requests N] [--lengths 202,179] [--deterministic yes|no]
//
// --gbps and --tflops: what the machine reads and multiplies, as measured in the same hour (`kernels` says it of a GPU); --kv-gb: memory for
// KV pages (8); what does not fit is left out. --requests: how many the engine is given at once, with --lengths tokens of prompt and of
// completion each (512 on GPUs, none on the CPU, where they take minutes). Weights are loaded as those of a checkpoint are, from one file of random float16 numbers in
// --folder (/tmp), which all matrices of a model read from different places on. With --device cuda, PARLEY_CUDA_LIBRARY names the library; each
// rank has the next GPU. Rates are those of one GPU, or of the machine's whole processor; floors are of as many GPUs as there are ranks, and
// know nothing of what the ranks tell each other.
//
// Floors, with W the bytes of the matrices that a step reads, g the operations of a token in them, kv the bytes of a token's keys and
// values, B sequences of L tokens: max(W / rate, B g / operations) + B L kv / rate for a decode step, and for a prompt of T tokens
// max((T g' + 2 layers hidden T^2 + 2 vocab hidden) / operations, W / rate), g' without the unembedding. A step includes the choice of its
// tokens and ends when the host has them; on GPUs the next one is begun before, as the engine does. Of requests that run B at a time: o decode steps at L = i + o / 2, and B prompts, for B o tokens.
//
// Idle: from the end of a step's last copy to the host to the begin of the next one's first copy to the GPU, by CUDA's events, over all steps of
// the requests. A first token from process start: of the first model, without the time that its file was written in.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/arithmetic.h"
#include "base/check.h"
#include "engine/engine.h"
#include "model/rank_group.h"

namespace {

using namespace parley;
using Clock = std::chrono::steady_clock;

const Clock::time_point process_start = Clock::now();

struct Shape {
  const char* name;
  int64_t hidden, layers, heads, head_dim, rope_dims, vocab;
  bool gpt_j;  // one norm for both branches, interleaved rotation, tanh in GELU
};
constexpr Shape kShapes[] = {{"Pythia-410M", 1024, 24, 16, 64, 16, 50304, false},
                             {"Pythia-1.4B", 2048, 24, 16, 128, 32, 50304, false},
                             {"Pythia-6.9B", 4096, 32, 32, 128, 32, 50432, false},
                             {"GPT-J-6B", 4096, 28, 16, 256, 64, 50400, true},
                             {"GPT-NeoX-20B", 6144, 44, 64, 96, 24, 50432, false}};
constexpr Shape kTiny = {"tiny", 64, 2, 4, 16, 8, 512, false};  // for tests: where --models names it

struct Settings {
  double bytes_a_second = 0;
  double operations_a_second = 0;
  double kv_bytes = 8e9;
  int64_t threads = 1;
  int64_t ranks = 1;
  Device device = Device::cpu;
  std::string folder = "/tmp";
  std::string models;  // empty: all
  std::vector<int64_t> contexts{256, 1024};
  std::vector<int64_t> batches{1, 8, 32, 64, 128};
  std::vector<int64_t> prompts{512, 2048};
  std::vector<int64_t> lengths{202, 179};
  int64_t requests = -1;
  bool deterministic = false;
};

std::vector<int64_t> read_list(const std::string& name, const std::string& text) {
  std::vector<int64_t> list;
  for (const char* at = text.c_str();; ++at) {
    char* rest = nullptr;
    list.push_back(std::strtoll(at, &rest, 10));
    check(rest != at && (*rest == 0 || *rest == ',') && list.back() > 0 && list.back() <= 2048, name,
          ": expected numbers from 1 to 2048 with commas between them, got ", text);
    if (*rest == 0) return list;
    at = rest;
  }
}

Settings read_settings(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    check(i + 1 < argc, name, ": expected a value behind it");
    const std::string value = argv[i + 1];
    const auto number = [&] {
      char* rest = nullptr;
      const double parsed = std::strtod(value.c_str(), &rest);
      check(*rest == 0 && parsed > 0 && std::isfinite(parsed), name, ": expected a positive number, got ", value);
      return parsed;
    };
    if (name == "--gbps") settings.bytes_a_second = number() * 1e9;
    else if (name == "--tflops") settings.operations_a_second = number() * 1e12;
    else if (name == "--kv-gb") settings.kv_bytes = number() * 1e9;
    else if (name == "--threads") settings.threads = static_cast<int64_t>(number());
    else if (name == "--ranks") settings.ranks = static_cast<int64_t>(number());
    else if (name == "--device" && (value == "cpu" || value == "cuda")) settings.device = value == "cuda" ? Device::cuda : Device::cpu;
    else if (name == "--deterministic" && (value == "yes" || value == "no")) settings.deterministic = value == "yes";
    else if (name == "--folder") settings.folder = value;
    else if (name == "--models") settings.models = "," + value + ",";
    else if (name == "--contexts") settings.contexts = read_list(name, value);
    else if (name == "--batches") settings.batches = read_list(name, value);
    else if (name == "--prompts") settings.prompts = read_list(name, value);
    else if (name == "--lengths") settings.lengths = read_list(name, value);
    else if (name == "--requests") settings.requests = static_cast<int64_t>(number());
    else fail(name, ": expected an option of those that models.cc begins with, --device cpu or cuda and --deterministic yes or no");
  }
  check(settings.lengths.size() == 2, "--lengths: expected two numbers, of prompt and completion");
  if (settings.requests < 0) settings.requests = settings.device == Device::cuda ? 512 : 0;
  check(settings.bytes_a_second > 0 && settings.operations_a_second > 0, "expected --gbps and --tflops: floors are made of them");
  if (settings.device == Device::cuda) {
    settings.bytes_a_second *= static_cast<double>(settings.ranks);
    settings.operations_a_second *= static_cast<double>(settings.ranks);
  }
  return settings;
}

ModelSpec spec_of(const Shape& shape) {
  ModelSpec spec;
  spec.vocab_size = spec.num_sampled_ids = shape.vocab;
  spec.hidden_size = shape.hidden;
  spec.num_layers = shape.layers;
  spec.num_heads = spec.num_kv_heads = shape.heads;
  spec.head_dim = shape.head_dim;
  spec.intermediate_size = 4 * shape.hidden;
  spec.max_position = 2048;
  for (int64_t i = 0; i < shape.rope_dims; i += 2) {
    spec.rope_frequencies.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(shape.rope_dims)));
  }
  spec.rope_layout = shape.gpt_j ? RopeLayout::interleaved : RopeLayout::half_split;
  spec.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  spec.topology = shape.gpt_j ? Topology::parallel_shared : Topology::parallel;
  spec.activation = shape.gpt_j ? Activation::gelu_tanh : Activation::gelu;
  return spec;
}

constexpr int64_t kOffsets = 64 << 20;  // bytes by which tensors' places in the file differ, at most

// The largest matrix of all shapes, and room to begin at different places.
int64_t file_bytes(const Shape& shape) { return 2 * shape.hidden * std::max(shape.vocab, 4 * shape.hidden) + kOffsets; }

// Float16 numbers of both signs with magnitudes from 2^-7 to 2^-3, from a counter (splitmix64).
class RandomFile {
 public:
  RandomFile(const std::string& folder, int64_t bytes) : path_(folder + "/parley-bench-XXXXXX") {
    const int descriptor = mkstemp(path_.data());
    check(descriptor >= 0, path_, ": cannot be made");
    FILE* file = fdopen(descriptor, "wb");
    std::vector<uint16_t> numbers(1 << 20);
    uint64_t counter = 0;
    bool written = file != nullptr;
    for (int64_t done = 0; written && done < bytes; done += static_cast<int64_t>(numbers.size()) * 2) {
      for (uint16_t& number : numbers) {
        uint64_t bits = ++counter * 0x9e3779b97f4a7c15u;
        bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
        bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
        bits ^= bits >> 31;
        number = static_cast<uint16_t>((bits & 0x83ffu) | (8u + (bits >> 16 & 3u)) << 10);
      }
      written = std::fwrite(numbers.data(), 2, numbers.size(), file) == numbers.size();
    }
    if (file != nullptr) written &= std::fclose(file) == 0;
    if (!written) {
      unlink(path_.c_str());
      fail(path_, ": cannot be written");
    }
  }
  ~RandomFile() { unlink(path_.c_str()); }
  RandomFile(const RandomFile&) = delete;
  RandomFile& operator=(const RandomFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

ModelSource source_of(const Shape& shape, const RandomFile& file) {
  ModelSource source{spec_of(shape), {}, {file.path()}};
  const auto tensor = [&](TensorRole role, int64_t layer, int64_t rows, int64_t cols) {
    TensorSource tensor;
    tensor.role = role;
    tensor.layer = layer;
    tensor.dtype = DType::float16;
    tensor.file = 0;
    tensor.offset = static_cast<int64_t>(source.tensors.size()) * (4096 + 128) % kOffsets;
    tensor.stored_rows = tensor.group_rows = tensor.group_stride = rows;
    tensor.cols = cols;
    source.tensors.push_back(tensor);
  };
  const int64_t h = shape.hidden;
  tensor(TensorRole::embedding, 0, shape.vocab, h);
  tensor(TensorRole::unembedding, 0, shape.vocab, h);
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    tensor(TensorRole::query_weight, layer, h, h);
    tensor(TensorRole::key_weight, layer, h, h);
    tensor(TensorRole::value_weight, layer, h, h);
    tensor(TensorRole::attention_out_weight, layer, h, h);
    tensor(TensorRole::mlp_up_weight, layer, 4 * h, h);
    tensor(TensorRole::mlp_up_bias, layer, 4 * h, 1);
    tensor(TensorRole::mlp_down_weight, layer, h, 4 * h);
    tensor(TensorRole::mlp_down_bias, layer, h, 1);
  }
  return source;
}

// `count` sequences, each with `length` tokens behind it in pages of its own; of its last `rows` tokens one step is made, which chooses
// one token a sequence.
Step step_of(const SamplingParams& greedy, int64_t count, int64_t length, int64_t rows, int64_t vocab) {
  Step step;
  step.num_sequences = count;
  step.max_pages = ceil_div(length, kPageSize);
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t page = 0; page < step.max_pages; ++page) step.page_table.push_back(static_cast<int32_t>(s * step.max_pages + page));
    for (int64_t position = length - rows; position < length; ++position) {
      step.tokens.push_back(static_cast<int32_t>((s * 7919 + position * 104729) % vocab));
      step.positions.push_back(static_cast<int32_t>(position));
      step.slots.push_back(static_cast<int32_t>(s * step.max_pages * kPageSize + position));
      step.sequences.push_back(static_cast<int32_t>(s));
    }
    step.sample_rows.push_back(static_cast<int32_t>(step.tokens.size() - 1));
    SampleRow row;
    row.params = &greedy;
    row.position = length;
    step.samples.push_back(row);
  }
  return step;
}

std::vector<int32_t> prompt_of(int64_t request, int64_t length, int64_t vocab) {
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < length; ++i) prompt.push_back(static_cast<int32_t>((request * 7919 + i * 104729) % vocab));
  return prompt;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The median of at least 3 runs behind one that warms up, and of as many as half a second has room for. Where the engine would begin a step
// while the one before it runs, this does: then a time is that between the ends of two.
double median_seconds(RankGroup& ranks, const Step& step) {
  const Step steps[] = {step, step};
  StepResult results[2];
  ranks.run(steps[1], results[1]);
  std::vector<double> times;
  const Clock::time_point start = Clock::now();
  Clock::time_point begin = start;
  bool is_last = false;
  for (size_t i = 0; !is_last; ++i) {
    is_last = times.size() >= 3 && (seconds_since(start) >= 0.5 || times.size() >= 200);
    const StepRun next{&steps[(i + 1) % 2], &results[(i + 1) % 2]};
    ranks.run(steps[i % 2], results[i % 2], [&] { return ranks.chains() && !is_last ? next : StepRun(); });
    times.push_back(seconds_since(begin));
    begin = Clock::now();
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

// What the engine makes of all requests together.
struct Offline {
  double seconds;
  std::vector<float> idle_us;  // in order
};

Offline run_offline(std::unique_ptr<RankGroup> ranks, const EngineOptions& options, const Settings& settings, int64_t vocab) {
  RankGroup* group = ranks.get();
  std::string failure;
  std::mutex mutex;
  Engine engine(std::move(ranks), options, [&](PackedEvents&&, std::string&& text) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (failure.empty()) failure = std::move(text);
  });
  SamplingParams params;
  params.temperature = 0;
  params.max_tokens = settings.lengths[1];
  group->take_idle_us();
  const Clock::time_point start = Clock::now();
  for (int64_t r = 0; r < settings.requests; ++r) engine.submit(prompt_of(r, settings.lengths[0], vocab), params, 1);
  for (EngineStats stats = engine.stats(); stats.num_requests_running + stats.num_requests_waiting > 0; stats = engine.stats()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  Offline offline{seconds_since(start), group->take_idle_us()};
  std::sort(offline.idle_us.begin(), offline.idle_us.end());
  const std::lock_guard<std::mutex> lock(mutex);
  check(failure.empty(), failure);
  return offline;
}

void run_model(const Shape& shape, const Settings& settings) {
  const double h = static_cast<double>(shape.hidden), layers = static_cast<double>(shape.layers), vocab = static_cast<double>(shape.vocab);
  const double block_numbers = 12 * h * h * layers;
  const double weight_bytes = 2 * (block_numbers + vocab * h);
  const double kv_bytes = 4 * layers * h;
  const SamplingParams greedy = [] {
    SamplingParams params;
    params.temperature = 0;
    return params;
  }();

  EngineOptions options;
  options.device = settings.device;
  options.tensor_parallel_size = settings.ranks;
  options.dtype = DType::float16;
  options.deterministic = settings.deterministic;
  options.num_threads = settings.threads;
  options.max_model_len = 2048;
  options.max_num_seqs = 128;
  options.max_num_batched_tokens = 2048;
  const int64_t num_pages = static_cast<int64_t>(settings.kv_bytes / (kv_bytes * kPageSize));
  check(num_pages * kPageSize >= 512, shape.name, ": expected --kv-gb of at least ", kv_bytes * 512e-9, " for 512 tokens");

  options.max_queue = settings.requests;
  options.prefix_caching = false;
  options.pace_prompts = false;

  static bool is_first = true;
  const Clock::time_point file_start = Clock::now();
  const RandomFile file(settings.folder, file_bytes(shape));
  const Clock::time_point start = Clock::now();
  options.kv_cache_bytes = num_pages * static_cast<int64_t>(kv_bytes) * kPageSize;
  auto ranks = std::make_unique<RankGroup>(source_of(shape, file), options, [](double) {});
  const double loaded = seconds_since(start);
  const Step first = step_of(greedy, 1, 16, 16, shape.vocab);
  StepResult result;
  result.resize(1, 0);
  ranks->run(first, result);
  const double first_token = seconds_since(start);
  std::printf("\n%s: loaded in %.2f s from the page cache, a first token after %.2f s, %lld KV pages\n", shape.name, loaded, first_token,
              static_cast<long long>(num_pages));
  if (is_first) {
    const double before = std::chrono::duration<double>(file_start - process_start).count();
    std::printf("  first token from process start: %.2f s\n", before + first_token);
  }
  is_first = false;
  const auto prompt_operations = [&](double tokens) {
    return 2 * block_numbers * tokens + 2 * layers * h * tokens * tokens + 2 * vocab * h;
  };
  const auto decode_floor = [&](double batch, double context) {
    return std::max(weight_bytes / settings.bytes_a_second, batch * weight_bytes / settings.operations_a_second) +
           batch * context * kv_bytes / settings.bytes_a_second;
  };

  const auto fits = [&](int64_t count, int64_t length) { return count * ceil_div(length, kPageSize) <= num_pages; };
  for (const int64_t length : settings.contexts) {
    for (const int64_t batch : settings.batches) {
      if (!fits(batch, length)) continue;
      const double seconds = median_seconds(*ranks, step_of(greedy, batch, length, 1, shape.vocab));
      const double b = static_cast<double>(batch);
      const double floor = decode_floor(b, static_cast<double>(length));
      std::printf("  decode, %4lld tokens of context, batch %3lld: %9.3f ms, %9.1f tokens/s, %3.0f%% of the floor\n",
                  static_cast<long long>(length), static_cast<long long>(batch), seconds * 1e3, b / seconds, 100 * floor / seconds);
      std::fflush(stdout);
    }
  }
  for (const int64_t tokens : settings.prompts) {
    if (!fits(1, tokens)) continue;
    const double seconds = median_seconds(*ranks, step_of(greedy, 1, tokens, tokens, shape.vocab));
    const double t = static_cast<double>(tokens);
    const double floor = std::max(prompt_operations(t) / settings.operations_a_second, weight_bytes / settings.bytes_a_second);
    std::printf("  prompt of %4lld tokens: %9.3f ms, %9.1f tokens/s, %3.0f%% of the floor\n", static_cast<long long>(tokens), seconds * 1e3,
                t / seconds, 100 * floor / seconds);
    std::fflush(stdout);
  }

  const int64_t prompt = settings.lengths[0], completion = settings.lengths[1];
  if (settings.requests == 0 || !fits(1, prompt + completion)) return;
  const int64_t most_running = num_pages / ceil_div(prompt + completion, kPageSize);
  const double running = static_cast<double>(std::min({settings.requests, options.max_num_seqs, most_running}));
  const double i = static_cast<double>(prompt), o = static_cast<double>(completion);
  const double floor = o * decode_floor(running, i + o / 2) + running * prompt_operations(i) / settings.operations_a_second;
  const Offline offline = run_offline(std::move(ranks), options, settings, shape.vocab);
  const double tokens_a_second = static_cast<double>(settings.requests) * o / offline.seconds;
  std::printf("  offline, %lld requests of %lld + %lld tokens, %.0f at a time: %9.1f output tokens/s, %3.0f%% of the floor\n",
              static_cast<long long>(settings.requests), static_cast<long long>(prompt), static_cast<long long>(completion), running,
              tokens_a_second, 100 * tokens_a_second * floor / (running * o));
  const auto& idle = offline.idle_us;
  if (!idle.empty()) {
    std::printf("  GPU idle between steps: median %.1f us, 99th percentile %.1f us, of %zu\n", idle[idle.size() / 2],
                idle[idle.size() * 99 / 100], idle.size());
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Settings settings = read_settings(argc, argv);
    if (settings.models == std::string(",") + kTiny.name + ",") run_model(kTiny, settings);
    for (const Shape& shape : kShapes) {
      if (settings.models.empty() || settings.models.find(std::string(",") + shape.name + ",") != std::string::npos) {
        run_model(shape, settings);
      }
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

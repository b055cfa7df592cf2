// Attention on CUDA against float64, and its promise that a row's bits are its own.
#include "cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "cuda/kv_layout.h"

namespace {

using namespace parley;
using cuda::kv_index;

const unsigned seed = std::random_device()();
std::mt19937 generator(seed);
int failures = 0;
void expect(bool condition, const std::string& what) {
  if (condition) return;
  if (++failures <= 20) std::printf("attention: FAILED: %s (seed %u)\n", what.c_str(), seed);
}

int64_t below(int64_t n) { return static_cast<int64_t>(generator() % static_cast<unsigned long>(n)); }
std::vector<float> random_numbers(int64_t count, float size = 1) {
  std::normal_distribution<float> normal(0, size);
  std::vector<float> numbers(static_cast<size_t>(count));
  for (float& x : numbers) x = normal(generator);
  return numbers;
}

// Memory of the device; full of NaN at first.
template <class Number>
struct Device {
  Number* data = nullptr;
  int64_t size;
  explicit Device(int64_t count) : size(count) {
    check(cudaMalloc(&data, bytes()), "memory");
    check(cudaMemset(data, 0xff, bytes()), "memory");
  }
  explicit Device(const std::vector<Number>& host) : Device(static_cast<int64_t>(host.size())) { write(host); }
  ~Device() { cudaFree(data); }
  Device(const Device&) = delete;
  size_t bytes() const { return static_cast<size_t>(std::max<int64_t>(size, 1)) * sizeof(Number); }
  void write(const std::vector<Number>& host) { check(cudaMemcpy(data, host.data(), host.size() * sizeof(Number), cudaMemcpyHostToDevice), "upload"); }
  std::vector<Number> read() const {
    std::vector<Number> host(static_cast<size_t>(size));
    check(cudaMemcpy(host.data(), data, host.size() * sizeof(Number), cudaMemcpyDeviceToHost), "download");
    return host;
  }
};

HeadLayout heads_of(int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) { return {num_heads, num_kv_heads, head_dim, 0}; }

// Sequences of these lengths, with keys and values in pages in random order; every slot behind a sequence's end is NaN.
struct Case {
  HeadLayout heads;
  DType dtype;
  AttentionRule rule;
  std::vector<float> bias;  // rule.bias as the host has it
  std::vector<float> qkv;
  std::vector<int32_t> positions, sequences, page_table;
  int64_t num_sequences, max_pages, num_pages;
  std::vector<char> keys, values;

  Case(HeadLayout heads, DType dtype, const std::vector<int64_t>& lengths) : heads(heads), dtype(dtype) {
    rule.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(heads.head_dim)));
    num_sequences = static_cast<int64_t>(lengths.size());
    num_pages = 2;
    max_pages = 1;
    for (const int64_t length : lengths) {
      num_pages += ceil_div(length, kPageSize);
      max_pages = std::max(max_pages, ceil_div(length, kPageSize));
    }
    std::vector<int32_t> order(static_cast<size_t>(num_pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), generator);
    page_table.assign(static_cast<size_t>(num_sequences * max_pages), -1);
    size_t next = 0;
    for (int64_t s = 0; s < num_sequences; ++s) {
      const int64_t length = lengths[static_cast<size_t>(s)];
      for (int64_t p = 0; p * kPageSize < length; ++p) page_table[static_cast<size_t>(s * max_pages + p)] = order[next++];
      for (int64_t j = 0; j < length; ++j) {
        positions.push_back(static_cast<int32_t>(j));
        sequences.push_back(static_cast<int32_t>(s));
      }
    }
    qkv = random_numbers(num_rows() * heads.qkv_size());
    const auto page_bytes = static_cast<size_t>(num_pages * heads.kv_size() * kPageSize * dtype_bytes(dtype));
    keys.assign(page_bytes, '\xff');
    values.assign(page_bytes, '\xff');
    for (int64_t t = 0; t < num_rows(); ++t) {
      for (int64_t head = 0; head < heads.num_kv_heads; ++head) {
        for (int64_t d = 0; d < heads.head_dim; ++d) {
          store_number(keys.data(), index(t, head, d), dtype, qkv_at(t, heads.query_size() + head * heads.head_dim + d));
          store_number(values.data(), index(t, head, d), dtype, qkv_at(t, heads.query_size() + heads.kv_size() + head * heads.head_dim + d));
        }
      }
    }
  }

  int64_t num_rows() const { return static_cast<int64_t>(positions.size()); }
  float qkv_at(int64_t row, int64_t col) const { return qkv[static_cast<size_t>(row * heads.qkv_size() + col)]; }
  // Of a number of the key that stands where row t's stands.
  int64_t index(int64_t t, int64_t head, int64_t dim) const {
    return index_of(sequences[static_cast<size_t>(t)], positions[static_cast<size_t>(t)], head, dim);
  }
  int64_t index_of(int64_t sequence, int64_t key, int64_t head, int64_t dim) const {
    return kv_index(page_table[static_cast<size_t>(sequence * max_pages + key / kPageSize)], head, key % kPageSize, dim, heads.num_kv_heads,
                    heads.head_dim);
  }
  void use_bias(int64_t cols, float size = 2) {
    bias = random_numbers(heads.num_heads * cols, size);
    rule.bias = {nullptr, heads.num_heads, cols};
  }

  // Output of these rows as one call.
  std::vector<float> run(const std::vector<int64_t>& rows, int64_t multiprocessors = 4) const {
    const auto count = static_cast<int64_t>(rows.size());
    std::vector<float> picked;
    std::vector<int32_t> picked_positions, picked_sequences;
    for (const int64_t t : rows) {
      picked.insert(picked.end(), qkv.begin() + t * heads.qkv_size(), qkv.begin() + (t + 1) * heads.qkv_size());
      picked_positions.push_back(positions[static_cast<size_t>(t)]);
      picked_sequences.push_back(sequences[static_cast<size_t>(t)]);
    }
    const Device<float> device_qkv(picked), device_bias(bias), out(count * heads.query_size());
    const Device<char> device_keys(keys), device_values(values);
    const Device<int32_t> device_positions(picked_positions), device_sequences(picked_sequences), device_pages(page_table);
    AttentionRule device_rule = rule;
    if (!bias.empty()) device_rule.bias.data = device_bias.data;
    AttentionRows call;
    call.positions = {device_positions.data, count};
    call.sequences = {device_sequences.data, count};
    call.page_table = {device_pages.data, num_sequences, max_pages};
    call.host_positions = picked_positions.data();
    call.host_sequences = picked_sequences.data();
    call.plan = below(6);
    ScratchLimits limits{};
    limits.rows = limits.sequences = count;
    limits.context = max_pages * kPageSize;
    limits.num_heads = heads.num_heads;
    limits.head_dim = heads.head_dim;
    limits.plans = call.plan + 1;
    cuda::Attention attention(nullptr, multiprocessors);
    cuda::StepBlock block(nullptr);
    attention.reserve(limits);
    block.reserve(attention.block_bytes(limits));
    block.begin();
    attention.begin_block(block);
    attention.plan(call, heads, device_rule, block);
    block.send();
    attention.run({out.data, count, heads.query_size()}, {device_qkv.data, count, heads.qkv_size()},
                  {device_keys.data, device_values.data, dtype, num_pages}, call, heads, device_rule);
    return out.read();
  }
  std::vector<float> run_range(int64_t first, int64_t last, int64_t multiprocessors = 4) const {
    std::vector<int64_t> rows(static_cast<size_t>(last - first));
    std::iota(rows.begin(), rows.end(), first);
    return run(rows, multiprocessors);
  }

  // Whether one row of an output agrees with float64.
  bool agrees(int64_t t, const float* out) const {
    const int64_t sharing = heads.num_heads / heads.num_kv_heads;
    const int64_t position = positions[static_cast<size_t>(t)], sequence = sequences[static_cast<size_t>(t)];
    const int64_t last = rule.num_keys > 0 ? rule.num_keys : position + 1;
    const int64_t first = rule.window > 0 ? std::max<int64_t>(0, position - rule.window + 1) : 0;
    for (int64_t head = 0; head < heads.num_heads; ++head) {
      std::vector<double> weights;
      double largest = -INFINITY, total = 0, parts_at_most = 0, size = 0;
      for (int64_t key = first; key < last; ++key) {
        double score = 0, parts = 0;
        for (int64_t d = 0; d < heads.head_dim; ++d) {
          char rounded[4];
          store_number(rounded, 0, dtype, qkv_at(t, head * heads.head_dim + d));
          const double product = static_cast<double>(load_number(rounded, 0, dtype)) *
                                 static_cast<double>(load_number(keys.data(), index_of(sequence, key, head / sharing, d), dtype));
          score += product;
          parts += std::abs(product);
        }
        score *= static_cast<double>(rule.scale);
        if (rule.softcap != 0) score = static_cast<double>(rule.softcap) * std::tanh(score / static_cast<double>(rule.softcap));
        if (!bias.empty()) {
          const int64_t zero = rule.num_keys > 0 ? rule.bias.cols / 2 : rule.bias.cols - 1;
          const int64_t column = rule.bias_by_key ? key : std::min(std::max<int64_t>(0, zero - position + key), rule.bias.cols - 1);
          score += static_cast<double>(bias[static_cast<size_t>(head * rule.bias.cols + column)]);
        }
        weights.push_back(score);
        largest = std::max(largest, score);
        parts_at_most = std::max({parts_at_most, parts * static_cast<double>(rule.scale), std::abs(score)});
      }
      for (double& weight : weights) total += weight = std::exp(weight - largest);
      std::vector<double> expected(static_cast<size_t>(heads.head_dim), 0.0);
      for (int64_t key = first; key < last; ++key) {
        for (int64_t d = 0; d < heads.head_dim; ++d) {
          const auto value = static_cast<double>(load_number(values.data(), index_of(sequence, key, head / sharing, d), dtype));
          expected[static_cast<size_t>(d)] += weights[static_cast<size_t>(key - first)] / total * value;
          size = std::max(size, std::abs(value));
        }
      }
      // A score's error changes every weight by that factor; a weight is rounded to the keys' type (and in float16 to no finer than
      // 2^-24), in the sum of the weights as well; the sums add a rounding for each key.
      const double keys_seen = static_cast<double>(last - first);
      const double rounding = dtype == DType::float32 ? 0 : dtype == DType::float16 ? std::ldexp(1, -11) : std::ldexp(1, -8);
      const double bound = size * (2.1 * rounding + keys_seen * std::ldexp(1, -24) +
                                   std::ldexp(1, -23) * (static_cast<double>(heads.head_dim + 4) * parts_at_most + 4 * keys_seen + 32 +
                                                         8 * static_cast<double>(rule.softcap)));
      for (int64_t d = 0; d < heads.head_dim; ++d) {
        const float number = out[head * heads.head_dim + d];
        if (!(std::abs(static_cast<double>(number) - expected[static_cast<size_t>(d)]) <= bound)) {
          std::printf("  head %ld, dim %ld: %g, expected %g within %g\n", static_cast<long>(head), static_cast<long>(d),
                      static_cast<double>(number), expected[static_cast<size_t>(d)], bound);
          return false;
        }
      }
    }
    return true;
  }

  std::string name() const {
    return std::string(dtype_name(dtype)) + ", heads " + std::to_string(heads.num_heads) + "/" + std::to_string(heads.num_kv_heads) + " of " +
           std::to_string(heads.head_dim);
  }

  const float* row(const std::vector<float>& out, int64_t i) const { return out.data() + i * heads.query_size(); }
  bool same_bits(const float* a, const float* b, int64_t rows) const {
    return std::memcmp(a, b, static_cast<size_t>(rows * heads.query_size()) * 4) == 0;
  }
};

constexpr DType kDtypes[] = {DType::float16, DType::bfloat16, DType::float32};
DType any_of_16_bits() { return kDtypes[below(2)]; }

// On a GPU all kernels that it has are tested. The emulator is one of compute capability 8.6, and then of 9.0: for that, heads that have kernels of their own.
#ifdef PARLEY_CUDA_EMULATED
const bool only_hopper = cuda::runs_hopper_kernels();
#else
constexpr bool only_hopper = false;
#endif

const std::vector<HeadLayout>& layouts() {
  static const std::vector<HeadLayout> hopper = {heads_of(3, 3, 64), heads_of(6, 2, 80), heads_of(2, 2, 96), heads_of(4, 1, 128), heads_of(1, 1, 112)};
  if (only_hopper) return hopper;
  static const std::vector<HeadLayout> all = {
      heads_of(1, 1, 32),  heads_of(3, 3, 64),  heads_of(6, 2, 80),  heads_of(2, 2, 96),  heads_of(4, 1, 128), heads_of(2, 1, 192),
      heads_of(2, 2, 256), heads_of(2, 1, 20),  heads_of(12, 1, 7),  heads_of(3, 1, 40),  heads_of(1, 1, 112), heads_of(1, 1, 161),
      heads_of(20, 1, 64),
  };
  return all;
}

void check_rows(const Case& c, const std::vector<float>& out, int64_t most_step, const std::string& what) {
  for (int64_t t = 0; t < c.num_rows(); t += 1 + below(most_step)) {
    expect(c.agrees(t, c.row(out, t)), what + ", " + c.name() + ", row " + std::to_string(t));
  }
}

// All rows at once, each alone, in chunks; tiles cut and whole: one output.
void check_bits(const Case& c, const std::vector<float>& whole, const std::string& what) {
  const auto expect_same = [&](int64_t first, int64_t last, int64_t multiprocessors) {
    const std::vector<float> part = c.run_range(first, last, multiprocessors);
    expect(c.same_bits(part.data(), c.row(whole, first), last - first),
           what + ": bits of rows " + std::to_string(first) + " to " + std::to_string(last) + " of " + c.name());
  };
  for (int64_t first = 0; first < c.num_rows();) {
    const int64_t last = std::min(c.num_rows(), first + 1 + below(60));
    expect_same(first, last, below(2) == 0 ? 0 : 1000);
    first = last;
  }
  for (int64_t t = below(16); t < c.num_rows(); t += 1 + below(40)) expect_same(t, t + 1, below(2) == 0 ? 0 : 1000);
}

void test_shapes() {
  for (const HeadLayout heads : layouts()) {
    const Case c(heads, any_of_16_bits(), {1, 15, 16, 17, 70});
    const std::vector<float> out = c.run_range(0, c.num_rows());
    check_rows(c, out, 12, "shapes");
    check_bits(c, out, "shapes");
  }
  for (int i = 0; i < 3 && !only_hopper; ++i) {
    const Case c(layouts()[static_cast<size_t>(below(13))], DType::float32, {1, 15, 16, 17, 70});
    const std::vector<float> out = c.run_range(0, c.num_rows());
    check_rows(c, out, 12, "float32");
    check_bits(c, out, "float32");
  }
}

// Several splits, cut and whole.
void test_long() {
  for (const HeadLayout heads : {heads_of(2, 1, 64), heads_of(1, 1, 128), heads_of(1, 1, 256), heads_of(18, 1, 32)}) {
    if (only_hopper && cuda::hopper_pairs(heads.head_dim) == 0) continue;
    const Case c(heads, DType::float16, {780, 3, 512});
    const auto alone = [&](int64_t t, int64_t multiprocessors) { return c.run({t}, multiprocessors); };
    const std::vector<int64_t> rows = {779, 782, 1294};
    const std::vector<float> decode = c.run(rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      const float* row = c.row(decode, static_cast<int64_t>(i));
      expect(c.agrees(rows[i], row), "long, " + c.name());
      expect(c.same_bits(alone(rows[i], 0).data(), row, 1), "long: whole tiles, " + c.name());
      expect(c.same_bits(alone(rows[i], 1000).data(), row, 1), "long: cut tiles, " + c.name());
    }
    const std::vector<float> chunk = c.run_range(720, 780);
    expect(c.same_bits(c.row(chunk, 59), c.row(decode, 0), 1), "long: prefill and decode, " + c.name());
    expect(c.same_bits(c.run_range(730, 780, 1000).data(), c.row(chunk, 10), 50), "long: cut prefill tiles, " + c.name());
    expect(c.agrees(735, c.row(chunk, 15)), "long: prefill, " + c.name());
  }
}

void test_rules() {
  struct Rule {
    const char* name;
    std::function<void(Case&)> use;
  };
  const Rule rules[] = {
      {"a window of 1", [](Case& c) { c.rule.window = 1; }},
      {"a window of 23", [](Case& c) { c.rule.window = 23; }},
      {"a window of 64", [](Case& c) { c.rule.window = 64; }},
      {"a softcap", [](Case& c) { c.rule.scale = 1, c.rule.softcap = 5; }},
      {"a bias for every distance", [](Case& c) { c.use_bias(300); }},
      {"a bias that ends before the keys do", [](Case& c) { c.use_bias(21); }},
      {"a bias for every key", [](Case& c) { c.use_bias(300), c.rule.bias_by_key = true; }},
      {"all of them", [](Case& c) { c.rule.scale = 1, c.rule.softcap = 8, c.rule.window = 90, c.use_bias(25); }},
      {"keys behind the rows", [](Case& c) { c.rule.num_keys = 150; }},
      {"keys behind the rows and a bias", [](Case& c) { c.rule.num_keys = 150, c.use_bias(151); }},
  };
  for (const Rule& rule : rules) {
    for (const DType dtype : {any_of_16_bits(), DType::float32}) {
      if (only_hopper && dtype == DType::float32) continue;
      Case c(heads_of(2, below(2) == 0 ? 1 : 2, only_hopper ? 8 * (8 + below(9)) : 8 * (1 + below(12))), dtype, {150});
      rule.use(c);
      const std::vector<float> out = c.run_range(0, c.num_rows());
      check_rows(c, out, 90, rule.name);
      check_bits(c, out, rule.name);
    }
  }
}

// A key and a value that are not finite: seen by the rows from it on and by no other.
void test_special_values() {
  for (const HeadLayout heads : {heads_of(1, 1, 64), heads_of(2, 1, 256), heads_of(3, 1, 80)}) {
    for (const DType dtype : kDtypes) {
      if (only_hopper && (dtype == DType::float32 || cuda::hopper_pairs(heads.head_dim) == 0)) continue;
      for (const float special : {INFINITY, NAN}) {
        Case c(heads, dtype, {60});
        c.rule.window = 25;
        const std::vector<float> before = c.run_range(0, 60);
        const int64_t key = 10 + below(20);
        for (int64_t d = 0; d < heads.head_dim; d += 1 + below(7)) {
          store_number(c.values.data(), c.index_of(0, key, 0, d), dtype, special);
          if (below(2) == 0) store_number(c.keys.data(), c.index_of(0, key, 0, d), dtype, special);
        }
        const std::vector<float> after = c.run_range(0, 60);
        expect(c.same_bits(after.data(), before.data(), key), "a special value and the rows before it, " + c.name());
        expect(c.same_bits(c.row(after, key + 25), c.row(before, key + 25), 60 - key - 25), "a special value behind the window, " + c.name());
        expect(!std::isfinite(after[static_cast<size_t>(key * heads.query_size())]), "a special value and its own row, " + c.name());
        expect(c.same_bits(c.run_range(3, 37).data(), c.row(after, 3), key - 3), "a special value and a chunk, " + c.name());
      }
    }
  }
}

void test_far_scores() {
  for (const DType dtype : kDtypes) {
    Case c(heads_of(2, 2, 64), dtype, {50});
    c.rule.scale = 1e4f;
    for (const float x : c.run_range(0, 50)) expect(std::isfinite(x), "scores far beyond the range of e^x");
  }
}

void test_refusals() {
  try {
    Case(heads_of(1, 1, 264), DType::float16, {3}).run_range(0, 3);
    expect(false, "heads of 264 dims are refused");
  } catch (const Error& error) {
    expect(std::string(error.what()).find("heads of 264 dims, expected at most 256") != std::string::npos, error.what());
  }
}

}  // namespace

int main() {
  test_shapes();
  test_long();
  test_rules();
  test_special_values();
  test_far_scores();
  test_refusals();
  if (failures == 0) std::printf("attention: ok\n");
  return failures > 0;
}

// What the programs that test linear and its kin need: random weights, arrays on both sides, expectations.
#pragma once

#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "base/dtype.h"
#include "cuda/packed_weight.h"
#include "cuda/status.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

// With the argument `few` a program has fewer cases of each kind: for sanitizers, under which every kernel's start takes milliseconds.
inline bool few = false;
inline bool asks_for_few(int argc, char** argv) { return argc > 1 && std::strcmp(argv[1], "few") == 0; }

inline int failures = 0;
inline unsigned seed = std::random_device{}();
inline std::mt19937 random_bits(seed);

template <class... Arguments>
void expect(bool condition, const char* format, Arguments... arguments) {
  if (condition) return;
  if (++failures > 20) return;
  std::printf("FAILED (seed %u): ", seed);
  std::printf(format, arguments...);
  std::printf("\n");
}

inline int64_t below(int64_t n) { return static_cast<int64_t>(random_bits() % static_cast<uint32_t>(n)); }
inline float normal() {
  static std::normal_distribution<float> distribution;
  return distribution(random_bits);
}
inline float rounded(float x, DType dtype) {
  float result;
  uint32_t memory;
  store_number(&memory, 0, dtype, x);
  result = load_number(&memory, 0, dtype);
  return result;
}

// A host array and its copy on the device.
template <class Number>
struct Both {
  std::vector<Number> host;
  Number* device = nullptr;
  explicit Both(std::vector<Number> numbers) : host(std::move(numbers)) {
    if (host.empty()) return;
    check(cudaMalloc(&device, bytes()), "memory");
    write();
  }
  ~Both() { cudaFree(device); }
  Both(const Both&) = delete;
  size_t bytes() const { return host.size() * sizeof(Number); }
  void write() { check(cudaMemcpy(device, host.data(), bytes(), cudaMemcpyHostToDevice), "upload"); }
  void read() { check(cudaMemcpy(host.data(), device, bytes(), cudaMemcpyDeviceToHost), "download"); }
};

struct Weight {
  int64_t rows, cols;
  DType dtype;
  std::vector<float> numbers;
  Both<uint8_t> packed;
  Weight(int64_t rows, int64_t cols, DType dtype) : rows(rows), cols(cols), dtype(dtype), packed(pack()) {}
  PackedWeight view() const { return {packed.device, dtype, rows, cols}; }

 private:
  std::vector<uint8_t> pack() {
    std::vector<uint8_t> bytes(static_cast<size_t>(packed_weight_bytes(rows, cols, dtype)));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t k = 0; k < cols; ++k) {
        numbers.push_back(rounded(normal(), dtype));
        store_number(bytes.data(), i * row_pitch(cols) + k, dtype, numbers.back());
      }
    }
    return bytes;
  }
};

inline std::vector<float> normals(int64_t count) {
  std::vector<float> numbers(static_cast<size_t>(count));
  for (float& number : numbers) number = normal();
  return numbers;
}

inline bool same(const std::vector<float>& a, const float* b) { return a.empty() || std::memcmp(a.data(), b, a.size() * sizeof(float)) == 0; }

constexpr DType kDTypes[] = {DType::float32, DType::float16, DType::bfloat16};

}  // namespace cuda
}  // namespace parley

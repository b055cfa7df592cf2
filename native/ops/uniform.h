// The random numbers of sampling, the same on every device.
#pragma once

#include <cstdint>

namespace parley {

// The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
constexpr uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Number `position` of the SplitMix64 stream that (seed, choice) names: 53 random bits in [0, 1).
constexpr double uniform(int64_t seed, int64_t choice, int64_t position) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio
  const uint64_t stream = mix(mix(static_cast<uint64_t>(seed) + kStep) + (static_cast<uint64_t>(choice) + 1) * kStep);
  const uint64_t random = mix(stream + (static_cast<uint64_t>(position) + 1) * kStep);
  return static_cast<double>(random >> 11) * 0x1p-53;
}

}  // namespace parley

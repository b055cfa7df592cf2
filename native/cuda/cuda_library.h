// The door to CUDA: a library of its own, opened at run time, so that the addon is the same with and without it, and starts where
// there is no driver.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "ops/backend.h"
#include "ops/collective.h"

namespace parley {

// FNV-1a.
constexpr uint64_t hash_of(const char* text, uint64_t hash = 0xcbf29ce484222325u) {
  while (*text) hash = (hash ^ static_cast<unsigned char>(*text++)) * 0x100000001b3u;
  return hash;
}
template <class... Types>
constexpr uint64_t hash_of_sizes(uint64_t hash) {
  ((hash = (hash ^ sizeof(Types)) * 0x100000001b3u), ...);
  return hash;
}

struct CudaDevice {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
  bool has_cublaslt = false;  // which multiplies where nothing has to be deterministic
};

// What the library exports under kCudaLibraryEntry, as `const CudaLibrary* (*)()`. All throw Error.
struct CudaLibrary {
  // kInterface as the library was compiled; compared before anything is called.
  uint64_t interface;
  // At least 1. Throws if there is no device, no driver, or one that is too old.
  int (*count_devices)();
  // Throws if this library does not run on the device.
  CudaDevice (*describe)(int device);
  std::unique_ptr<Backend> (*make_backend)(int device, bool deterministic, int64_t give_up_after_ms);
  // devices: of each rank.
  std::unique_ptr<MeetingPlace> (*make_meeting_place)(Span<const int> devices, bool deterministic);
};

// Changes with every method and op of Backend, every method of Collective and the size of all that they are given, so that a library of
// other sources is refused and not misread.
#define METHOD(...) #__VA_ARGS__
#define OP(name, arguments) #name #arguments
constexpr uint64_t kInterface = hash_of_sizes<PackedWeight, Product, Summand, RowNorm, StoredRows, ExpertWeights, HeadLayout, KvLayer, AttentionRows,
                                              ListBlock, StepShape, AttentionRule, ScratchLimits, ScoreRow, SampleRow, SamplingParams, Matrix<float>, Span<float>,
                                              std::function<void()>, std::string, CudaDevice, CudaLibrary>(hash_of(
#include "ops/backend.def"
#include "ops/collective.def"
#include "ops/ops.def"
    ));
#undef METHOD
#undef OP

constexpr const char* kCudaLibraryEntry = "parley_cuda_library";

// Opens the library beside the addon, or the one that the variable PARLEY_CUDA_LIBRARY names (tests); once, later calls get the same.
// Throws Error with the reason if there is none or if it has no device to offer.
const CudaLibrary& cuda_library();

}  // namespace parley

// The door to CUDA: a library of its own, opened at run time, so that the addon is the same with and without it, and starts where
// there is no driver.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ops/backend.h"

namespace parley {

// Changes with every op's name and arguments, so that a library of other sources is refused and not misread (FNV-1a).
constexpr uint64_t hash_of(const char* text, uint64_t hash = 0xcbf29ce484222325u) {
  while (*text) hash = (hash ^ static_cast<unsigned char>(*text++)) * 0x100000001b3u;
  return hash;
}
#define OP(name, arguments) #name #arguments
constexpr uint64_t kInterface = hash_of(
#include "ops/ops.def"
    ) ^ sizeof(ScratchLimits) ^ sizeof(AttentionRule) << 16 ^ sizeof(AttentionRows) << 32 ^ sizeof(SamplingParams) << 48;
#undef OP

struct CudaDevice {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
};

// What the library exports under kCudaLibraryEntry, as `const CudaLibrary* (*)()`. All throw Error.
struct CudaLibrary {
  // kInterface as the library was compiled; compared before anything is called.
  uint64_t interface;
  // Throws if there is no device, no driver, or one that is too old.
  int (*count_devices)();
  CudaDevice (*describe)(int device);
  std::unique_ptr<Backend> (*make_backend)(int device, bool deterministic);
};
constexpr const char* kCudaLibraryEntry = "parley_cuda_library";

// Opens the library beside the addon, or the one that the variable PARLEY_CUDA_LIBRARY names (tests); once, later calls get the same.
// Throws Error with the reason if there is none or if it has no device to offer.
const CudaLibrary& cuda_library();

}  // namespace parley

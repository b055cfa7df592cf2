#include "cuda/cuda_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

#include "base/check.h"

namespace parley {
namespace {

std::string library_path() {
  if (const char* path = std::getenv("PARLEY_CUDA_LIBRARY")) return path;
  Dl_info self;
  check(dladdr(reinterpret_cast<const void*>(&library_path), &self) != 0 && self.dli_fname != nullptr, "cannot find the addon's folder");
  const std::string path = self.dli_fname;
  return path.substr(0, path.rfind('/') + 1) + "parley_cuda.so";
}

const CudaLibrary& open_library() {
  const std::string path = library_path();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const std::string reason = dlerror();
    check(access(path.c_str(), F_OK) == 0, "Parley's CUDA library is not built (", path,
          "); `npm run setup` builds it where it finds nvcc (CUDA's toolkit) and a GPU, and writes build/cuda.log");
    fail("Parley's CUDA library cannot be opened: ", reason);
  }
  using Entry = const CudaLibrary* (*)();
  const Entry entry = reinterpret_cast<Entry>(dlsym(library, kCudaLibraryEntry));
  check(entry != nullptr, path, ": not a library of Parley's");
  const CudaLibrary& functions = *entry();
  check(functions.interface == kInterface, path, ": built from other sources than the addon; build both anew");
  return functions;
}

}  // namespace

const CudaLibrary& cuda_library() {
  static const CudaLibrary& the_one = open_library();
  return the_one;
}

}  // namespace parley

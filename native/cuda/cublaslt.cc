#include "cuda/cublaslt.h"

#if __has_include(<cublasLt.h>) && !defined(PARLEY_CUDA_EMULATED)

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>

#include "base/check.h"
#include "cuda/packed_weight.h"
#include "cuda/status.h"

namespace parley {
namespace cuda {
namespace {

void check(cublasStatus_t status, const char* what) {
  parley::check(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: ", what, ": status ", static_cast<int>(status));
}

// The functions that are used, by their own names.
#define PARLEY_CUBLASLT(X)                                                                                                          \
  X(cublasLtCreate) X(cublasLtDestroy) X(cublasLtMatmul) X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmulDescCreate)               \
  X(cublasLtMatmulDescDestroy) X(cublasLtMatmulDescSetAttribute) X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy)       \
  X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute)

struct Library {
#define X(name) decltype(&::name) name = nullptr;
  PARLEY_CUBLASLT(X)
#undef X
};

// Stays open: its kernels may be in use until the process ends.
bool open_library(Library& library) {
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) return false;
#define X(name)                                                                      \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, #name));     \
  if (!library.name) return false;
  PARLEY_CUBLASLT(X)
#undef X
  return true;
}

// The largest power of two, up to 256, that divides an address.
uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data) | 256;
  return static_cast<uint32_t>(address & -address);
}

class OpenCublasLt final : public CublasLt {
 public:
  explicit OpenCublasLt(const Library& library) : library_(library) { check(library_.cublasLtCreate(&handle_), "start"); }
  ~OpenCublasLt() override {
    for (auto& [key, plan] : plans_) destroy(plan);
    library_.cublasLtDestroy(handle_);
  }

  bool multiply(cudaStream_t stream, Matrix<float> out, const void* x, const PackedWeight& weight, Span<const float> bias,
                bool accumulate, void* workspace) override {
    const Key key{weight.dtype, weight.rows, weight.cols, out.rows, out.stride, alignment_of(out.data), alignment_of(bias.data),
                  !bias.empty()};
    auto found = plans_.find(key);
    if (found == plans_.end()) found = plans_.emplace(key, make_plan(out, weight, bias)).first;
    Plan& plan = found->second;
    if (!plan.possible) return false;
    if (!bias.empty()) set(plan.multiplication, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.data);
    const float one = 1, add = accumulate ? 1 : 0;
    const cublasStatus_t status = library_.cublasLtMatmul(handle_, plan.multiplication, &one, weight.data, plan.weight, x, plan.x, &add, out.data,
                                                          plan.out, out.data, plan.out, &plan.algorithm, workspace, kWorkspaceBytes, stream);
    // What it has proposed itself, such as a kernel that it makes with a library that is not here.
    plan.possible = status != CUBLAS_STATUS_NOT_SUPPORTED;
    if (plan.possible) check(status, "matrix multiplication");
    return plan.possible;
  }

 private:
  // All that the choice of an algorithm depends on.
  using Key = std::tuple<DType, int64_t, int64_t, int64_t, int64_t, uint32_t, uint32_t, bool>;

  struct Plan {
    bool possible = false;
    cublasLtMatmulDesc_t multiplication = nullptr;
    cublasLtMatrixLayout_t weight = nullptr;
    cublasLtMatrixLayout_t x = nullptr;
    cublasLtMatrixLayout_t out = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };

  template <class Value>
  void set(cublasLtMatmulDesc_t multiplication, cublasLtMatmulDescAttributes_t attribute, const Value& value) const {
    check(library_.cublasLtMatmulDescSetAttribute(multiplication, attribute, &value, sizeof value), "an attribute");
  }

  // To the library, which counts columns first, a row-major matrix is its transpose: out^T = (W^T)^T x^T.
  Plan make_plan(Matrix<float> out, const PackedWeight& weight, Span<const float> bias) const {
    const cudaDataType type = weight.dtype == DType::float16 ? CUDA_R_16F : CUDA_R_16BF;
    const auto rows = static_cast<uint64_t>(weight.rows), cols = static_cast<uint64_t>(weight.cols);
    const auto tokens = static_cast<uint64_t>(out.rows);
    Plan plan;
    check(library_.cublasLtMatmulDescCreate(&plan.multiplication, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a description");
    set(plan.multiplication, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (!bias.empty()) {
      set(plan.multiplication, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(plan.multiplication, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.data);
    }
    check(library_.cublasLtMatrixLayoutCreate(&plan.weight, type, cols, rows, row_pitch(weight.cols)), "a layout");
    check(library_.cublasLtMatrixLayoutCreate(&plan.x, type, cols, tokens, row_pitch(weight.cols)), "a layout");
    check(library_.cublasLtMatrixLayoutCreate(&plan.out, CUDA_R_32F, rows, tokens, out.stride), "a layout");

    cublasLtMatmulPreference_t preference;
    check(library_.cublasLtMatmulPreferenceCreate(&preference), "a preference");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(library_.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "a preference");
    };
    const uint32_t alignment = std::min<uint32_t>(alignment_of(out.data), alignment_of(reinterpret_cast<void*>(out.stride * 4)));
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment);
    cublasLtMatmulHeuristicResult_t best{};
    int num_found = 0;
    const cublasStatus_t status =
        library_.cublasLtMatmulAlgoGetHeuristic(handle_, plan.multiplication, plan.weight, plan.x, plan.out, plan.out, preference, 1,
                                                &best, &num_found);
    library_.cublasLtMatmulPreferenceDestroy(preference);
    plan.possible = status == CUBLAS_STATUS_SUCCESS && num_found > 0 && best.state == CUBLAS_STATUS_SUCCESS;
    if (plan.possible) plan.algorithm = best.algo;
    return plan;
  }

  void destroy(const Plan& plan) const {
    library_.cublasLtMatrixLayoutDestroy(plan.out);
    library_.cublasLtMatrixLayoutDestroy(plan.x);
    library_.cublasLtMatrixLayoutDestroy(plan.weight);
    library_.cublasLtMatmulDescDestroy(plan.multiplication);
  }

  Library library_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, Plan> plans_;
};

}  // namespace

std::unique_ptr<CublasLt> CublasLt::open() {
  Library library;
  if (!open_library(library)) return nullptr;
  return std::make_unique<OpenCublasLt>(library);
}

}  // namespace cuda
}  // namespace parley

#else

namespace parley {
namespace cuda {

std::unique_ptr<CublasLt> CublasLt::open() { return nullptr; }

}  // namespace cuda
}  // namespace parley

#endif

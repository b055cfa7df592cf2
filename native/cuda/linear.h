// linear on a GPU: which kernel runs, and the memory that they share.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "cuda/cublaslt.h"
#include "cuda/linear_call.h"
#include "cuda/memory.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

class Linear {
 public:
  // Works in `stream`. Unless `deterministic`, calls of many tokens go to cuBLASLt, if this machine has it; its bits depend on how many
  // they are. All other kernels give a token the same bits in every call.
  Linear(cudaStream_t stream, int64_t num_multiprocessors, bool deterministic);

  // Scratch for calls within the limits: bytes that are needed, that are held, and taking them, so that no such call allocates.
  int64_t scratch_bytes(const ScratchLimits& limits) const;
  int64_t held_scratch_bytes() const { return rounded_.bytes() + sums_.bytes() + partials_.bytes() + arrivals_.bytes() + library_workspace_.bytes(); }
  void reserve_scratch(const ScratchLimits& limits);

  // As in ops.def.
  void run(Span<const Product> products);

  // The same with every row's own of several weights of one shape (experts.cu): out[r, :] = x[experts.x_rows[r], :] W^T. `tokens` is the
  // most rows that a weight can have; the list's tiles have up to expert_tile_rows(dtype, tokens) and are at most max_tiles.
  void run_experts(Matrix<float> out, Matrix<const float> x, const PackedWeight& shape, const ExpertWeightList& experts, int64_t tokens,
                   int64_t max_tiles);
  static int64_t expert_tile_rows(DType dtype, int64_t tokens);

  bool has_library() const { return library_ != nullptr; }

 private:
  int64_t rounded_scratch(const ScratchLimits& limits) const;
  int64_t sums_scratch(const ScratchLimits& limits) const;
  int64_t few_tokens() const;  // most of a call with dense 16-bit weights that is part of a pass
  const void* rounded(Matrix<const float> x, DType dtype);
  void run_hopper(Span<LinearCall> calls);
  void round_inputs(Span<LinearCall> calls);
  void run_many(const Product& product, const LinearCall& call);

  cudaStream_t stream_;
  int64_t num_multiprocessors_;
  bool hopper_;  // dense 16-bit weights: linear_hopper_few
  std::unique_ptr<CublasLt> library_;  // null: not used
  PassCuts cuts_;
  DeviceScratch rounded_;               // x in the weights' type
  DeviceScratch sums_;                  // the library's, where `out` is not float32
  DeviceScratch partials_;              // sums that blocks share
  DeviceScratch arrivals_;              // zeros between calls
  DeviceScratch library_workspace_;
};

}  // namespace cuda
}  // namespace parley

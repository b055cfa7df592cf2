#include "cuda/route.h"

#include "base/arithmetic.h"
#include "cuda/launch.h"
#include "cuda/order.h"
#include "cuda/reduce.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMostExperts = 32 * 32;  // a lane has a bit for each of its own

// A warp has a row. Experts are taken one by one, the largest logit that is left first; among equals, the lower index.
__global__ void __launch_bounds__(32 * kWarps) choose(Matrix<int32_t> experts, Matrix<float> shares, Matrix<const float> logits,
                                                      bool normalise) {
  wait_for_previous_kernel();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= logits.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* x = logits.row(row);
  const int num_experts = static_cast<int>(logits.cols);
  const int num_chosen = static_cast<int>(experts.cols);

  float top = 0;
  float total = 0;     // of the chosen ones' weights
  uint32_t taken = 0;  // of this lane's experts, lane, lane + 32, …
  for (int j = 0; j < num_chosen; ++j) {
    uint64_t best = 0;
    for (int i = 0; lane + 32 * i < num_experts; ++i) {
      const uint64_t mine = ranked(x[lane + 32 * i], lane + 32 * i);
      if (!(taken >> i & 1u) && mine > best) best = mine;
    }
    best = reduce_warp(best, Largest());
    const int expert = id_of(best);
    if (expert % 32 == lane) taken |= 1u << (expert / 32);
    if (j == 0) top = x[expert];
    const float weight = expf(x[expert] - top);
    total += weight;
    if (lane == 0) {
      experts.row(row)[j] = expert;
      shares.row(row)[j] = weight;
    }
  }
  if (!normalise) {
    total = 0;
    for (int e = lane; e < num_experts; e += 32) total += expf(x[e] - top);
    total = reduce_warp(total, Plus());
  }
  __syncwarp();
  for (int j = lane; j < num_chosen; j += 32) shares.row(row)[j] = shares.row(row)[j] / total;
}

}  // namespace

void route(cudaStream_t stream, Matrix<int32_t> experts, Matrix<float> shares, Matrix<const float> logits, bool normalise) {
  if (logits.rows == 0 || experts.cols == 0) return;
  check(logits.cols <= kMostExperts, "route: expected at most ", kMostExperts, " experts, got ", logits.cols);
  launch(choose, static_cast<unsigned>(ceil_div(logits.rows, kWarps)), 32 * kWarps, 0, stream, experts, shares, logits, normalise);
}

}  // namespace cuda
}  // namespace parley

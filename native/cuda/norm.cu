#include "cuda/norm.h"

#include "base/arithmetic.h"
#include "cuda/launch.h"
#include "cuda/norm_run.h"

namespace parley {
namespace cuda {
namespace {

struct NormCall {
  Matrix<float> out;
  Matrix<const float> x;
  const float* weight;  // or null: 1
  const float* bias;    // or null: 0
  bool own_weight;      // every run of a row has its own weights, not all the same
  bool own_bias;
  int64_t width;
  float eps;
};

// A block has one run.
template <int kWidth, bool kWithMean>
__global__ void __launch_bounds__(kMostNormThreads, 1) norm(NormCall call) {
  wait_for_previous_kernel();
  __shared__ float scratch[32];
  const int64_t runs = call.x.cols / call.width;
  const int64_t row = static_cast<int64_t>(blockIdx.x) / runs;
  const int64_t first = static_cast<int64_t>(blockIdx.x) % runs * call.width;
  const float* weight = call.weight ? call.weight + (call.own_weight ? first : 0) : nullptr;
  const float* bias = call.bias ? call.bias + (call.own_bias ? first : 0) : nullptr;
  norm_run<kWidth, kWithMean>({call.out.row(row) + first, call.x.row(row) + first, weight, bias, call.width, call.eps}, scratch);
}

template <bool kWithMean>
void run(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const float> weight, Span<const float> bias, int64_t width,
         float eps) {
  if (x.rows == 0 || x.cols == 0) return;
  const NormCall call{out, x, weight.data, bias.data, weight.size > width, bias.size > width, width, eps};
  const bool fours = by_fours(x.data, x.stride, width) && by_fours(out.data, out.stride, width) && by_fours(weight.data, 0, width) &&
                     by_fours(bias.data, 0, width);
  const unsigned threads = norm_threads(fours ? width / 4 : width);
  const int64_t blocks = checked_mul(x.rows, x.cols / width);
  check(blocks <= 0x7fffffff, "a norm of ", x.rows, " x ", x.cols / width, " runs: too many for one launch");
  const dim3 grid(static_cast<unsigned>(blocks));
  if (fours) {
    launch(norm<4, kWithMean>, grid, threads, 0, stream, call);
  } else {
    launch(norm<1, kWithMean>, grid, threads, 0, stream, call);
  }
}

}  // namespace

void layer_norm(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const float> weight, Span<const float> bias,
                int64_t width, float eps) {
  run<true>(stream, out, x, weight, bias, width, eps);
}

void rms_norm(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const float> weight, int64_t width, float eps) {
  run<false>(stream, out, x, weight, {}, width, eps);
}

}  // namespace cuda
}  // namespace parley

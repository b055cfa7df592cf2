#include "cuda/norm.h"

#include <algorithm>

#include "base/arithmetic.h"
#include "cuda/launch.h"
#include "cuda/norm_run.h"

namespace parley {
namespace cuda {
namespace {

struct NormOutput {
  Output out;
  const float* weight;  // or null: 1
  const float* bias;    // or null: 0
  bool own_weight;      // every run of a row has its own weights, not all the same
  bool own_bias;
};

struct NormCall {
  Matrix<const float> x;
  NormOutput outputs[kMaxNorms];
  int64_t width;
  float eps;
};

// Block (i, j) has run i for output j.
template <int kWidth, bool kWithMean>
__global__ void __launch_bounds__(kMostNormThreads, 2) norm(NormCall call) {
  start_next_kernel(call.x.rows);
  wait_for_previous_kernel();
  __shared__ float scratch[32];
  const int64_t runs = call.x.cols / call.width;
  const int64_t row = static_cast<int64_t>(blockIdx.x) / runs;
  const int64_t first = static_cast<int64_t>(blockIdx.x) % runs * call.width;
  const NormOutput& output = call.outputs[blockIdx.y];
  const float* weight = output.weight ? output.weight + (output.own_weight ? first : 0) : nullptr;
  const float* bias = output.bias ? output.bias + (output.own_bias ? first : 0) : nullptr;
  norm_run<kWidth, kWithMean>({output.out.at(row, first), output.out.dtype, call.x.row(row) + first, weight, bias, call.width, call.eps}, scratch);
}

// norms: of one kind, with one eps.
void run(cudaStream_t stream, Matrix<const float> x, Span<const RowNorm> norms, int64_t width) {
  if (x.rows == 0 || x.cols == 0) return;
  NormCall call{x, {}, width, norms[0].eps};
  bool fours = by_fours(x.data, x.stride, width);
  for (int64_t j = 0; j < norms.size; ++j) {
    const auto& [kind, out, weight, bias, eps] = norms[j];
    call.outputs[j] = {out, weight.data, bias.data, weight.size > width, bias.size > width};
    fours = fours && by_fours(out.data, out.stride, width, dtype_bytes(out.dtype)) && by_fours(weight.data, 0, width) && by_fours(bias.data, 0, width);
  }
  const unsigned threads = norm_threads(fours ? width / 4 : width);
  const int64_t blocks = checked_mul(x.rows, x.cols / width);
  check(blocks <= 0x7fffffff, "a norm of ", x.rows, " x ", x.cols / width, " runs: too many for one launch");
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(norms.size));
  if (norms[0].kind == Norm::layer) {
    launch(fours ? norm<4, true> : norm<1, true>, grid, threads, 0, stream, call);
  } else {
    launch(fours ? norm<4, false> : norm<1, false>, grid, threads, 0, stream, call);
  }
}

}  // namespace

void layer_norm(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const float> weight, Span<const float> bias,
                int64_t width, float eps) {
  const RowNorm norm{Norm::layer, out, weight, bias, eps};
  run(stream, x, {&norm, 1}, width);
}

void rms_norm(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const float> weight, int64_t width, float eps) {
  const RowNorm norm{Norm::rms, out, weight, {}, eps};
  run(stream, x, {&norm, 1}, width);
}

void normalise(cudaStream_t stream, Matrix<const float> x, Span<const RowNorm> norms) {
  const auto together = [&](const RowNorm& norm) {
    return norm.kind == norms[0].kind && norm.eps == norms[0].eps && norm.out.data != x.data;
  };
  const int64_t count = norms.size <= kMaxNorms && std::all_of(norms.begin(), norms.end(), together) ? norms.size : 1;
  for (int64_t first = 0; first < norms.size; first += count) run(stream, x, {norms.data + first, count}, x.cols);
}

}  // namespace cuda
}  // namespace parley

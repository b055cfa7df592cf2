#include "cuda/norm.h"

#include <algorithm>

#include "base/arithmetic.h"
#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "cuda/reduce.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kMostThreads = 1024;
constexpr int kHeld = 4;  // packs that a thread keeps in registers; those of wider runs are read again

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

// A block has one run. Thread i takes packs i, i + threads, …, so the order of a sum follows from the width alone.
template <int kWidth, bool kWithMean>
__global__ void __launch_bounds__(kMostThreads) norm(NormCall call) {
  __shared__ float scratch[32];
  const int64_t runs = call.x.cols / call.width;
  const int64_t row = static_cast<int64_t>(blockIdx.x) / runs;
  const int64_t first = static_cast<int64_t>(blockIdx.x) % runs * call.width;
  const float* x = call.x.row(row) + first;
  const float count = static_cast<float>(call.width);
  const int64_t packs = call.width / kWidth;
  Pack<float, kWidth> held[kHeld];
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int64_t pack = threadIdx.x + static_cast<int64_t>(j) * blockDim.x;
    held[j] = pack < packs ? load_pack<kWidth>(x + pack * kWidth) : Pack<float, kWidth>{};
  }

  float mean = 0;
  if (kWithMean) {
    float total = 0;
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) total += held[j].numbers[i];
    }
    for (int64_t pack = threadIdx.x + static_cast<int64_t>(kHeld) * blockDim.x; pack < packs; pack += blockDim.x) {
      const Pack<float, kWidth> more = load_pack<kWidth>(x + pack * kWidth);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) total += more.numbers[i];
    }
    mean = reduce_block(total, scratch, 0.0f, Plus()) / count;
  }

  float squares = 0;
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    if (threadIdx.x + static_cast<int64_t>(j) * blockDim.x >= packs) break;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) squares = fmaf(held[j].numbers[i] - mean, held[j].numbers[i] - mean, squares);
  }
  for (int64_t pack = threadIdx.x + static_cast<int64_t>(kHeld) * blockDim.x; pack < packs; pack += blockDim.x) {
    const Pack<float, kWidth> more = load_pack<kWidth>(x + pack * kWidth);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) squares = fmaf(more.numbers[i] - mean, more.numbers[i] - mean, squares);
  }
  const float factor = 1.0f / sqrtf(reduce_block(squares, scratch, 0.0f, Plus()) / count + call.eps);

  const float* weights = call.weight + (call.own_weight ? first : 0);
  const float* biases = call.bias + (call.own_bias ? first : 0);
  float* out = call.out.row(row) + first;
  const auto write = [&](int64_t pack, Pack<float, kWidth> numbers) {
    Pack<float, kWidth> weight, bias;
    if (call.weight) weight = load_pack<kWidth>(weights + pack * kWidth);
    if (call.bias) bias = load_pack<kWidth>(biases + pack * kWidth);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      float y = (numbers.numbers[i] - mean) * factor;
      if (call.weight && call.bias) {
        y = fmaf(y, weight.numbers[i], bias.numbers[i]);
      } else if (call.weight) {
        y *= weight.numbers[i];
      } else if (call.bias) {
        y += bias.numbers[i];
      }
      numbers.numbers[i] = y;
    }
    store_pack<kWidth>(out + pack * kWidth, numbers);
  };
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int64_t pack = threadIdx.x + static_cast<int64_t>(j) * blockDim.x;
    if (pack < packs) write(pack, held[j]);
  }
  for (int64_t pack = threadIdx.x + static_cast<int64_t>(kHeld) * blockDim.x; pack < packs; pack += blockDim.x) {
    write(pack, load_pack<kWidth>(x + pack * kWidth));
  }
}

template <bool kWithMean>
void run(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const float> weight, Span<const float> bias, int64_t width,
         float eps) {
  if (x.rows == 0 || x.cols == 0) return;
  const NormCall call{out, x, weight.data, bias.data, weight.size > width, bias.size > width, width, eps};
  const bool fours = by_fours(x.data, x.stride, width) && by_fours(out.data, out.stride, width) && by_fours(weight.data, 0, width) &&
                     by_fours(bias.data, 0, width);
  const int64_t packs = fours ? width / 4 : width;
  const unsigned threads = static_cast<unsigned>(std::min<int64_t>(ceil_div(packs, 32) * 32, kMostThreads));
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

// Tokens in the weights' 16-bit type, as the tensor cores multiply them.
#include "cuda/launch.h"
#include "cuda/linear_call.h"
#include "cuda/mma.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kNumbers = 8;  // of a thread

// A thread rounds 8 numbers of a row; out [rows, pitch] has zeros behind the last column.
template <class T>
__global__ void __launch_bounds__(kThreads) round_kernel(uint4* out, const float* x, int64_t stride, int rows, int cols, int pitch) {
  start_next_kernel(rows);
  wait_for_previous_kernel();
  const unsigned index = blockIdx.x * kThreads + threadIdx.x;  // of at most 2^31 pieces (linear.cu)
  const unsigned pieces = static_cast<unsigned>(pitch / kNumbers);
  const int row = static_cast<int>(index / pieces);
  const int col = static_cast<int>(index % pieces) * kNumbers;
  if (row >= rows) return;
  uint32_t pairs[2][2];
  load_rounded<T>(pairs, x + row * stride, col, cols);
  out[index] = make_uint4(pairs[0][0], pairs[0][1], pairs[1][0], pairs[1][1]);
}

}  // namespace

void round_rows(cudaStream_t stream, void* out, DType dtype, Matrix<const float> x) {
  const int64_t pitch = row_pitch(x.cols);
  const dim3 grid(static_cast<unsigned>(ceil_div(x.rows * (pitch / kNumbers), int64_t{kThreads})));
  launch(dtype == DType::float16 ? round_kernel<__half> : round_kernel<__nv_bfloat16>, grid, dim3(kThreads), 0, stream,
         static_cast<uint4*>(out), x.data, x.stride, static_cast<int>(x.rows), static_cast<int>(x.cols), static_cast<int>(pitch));
}

}  // namespace cuda
}  // namespace parley

#include "cuda/elementwise.h"

#include "base/arithmetic.h"
#include "cuda/activation.h"
#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "cuda/packed_weight.h"
#include "cuda/tree_sum.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// operation.at<kWidth>(row, col) for every kWidth numbers of every row; a block has a part of one row.
template <int kWidth, class Operation>
__global__ void __launch_bounds__(kThreads) each_pack(Operation operation, int64_t cols, unsigned blocks_of_row) {
  wait_for_previous_kernel();
  const int64_t row = blockIdx.x / blocks_of_row;
  const int64_t col = (static_cast<int64_t>(blockIdx.x % blocks_of_row) * kThreads + threadIdx.x) * kWidth;
  if (col < cols) operation.template at<kWidth>(row, col);
}

template <class Operation>
void run(cudaStream_t stream, const Operation& operation, int64_t rows, int64_t cols, bool by_fours) {
  if (rows == 0 || cols == 0) return;
  const int64_t blocks_of_row = ceil_div(cols, kThreads * (by_fours ? 4 : 1));
  const int64_t blocks = checked_mul(rows, blocks_of_row);
  check(blocks <= 0x7fffffff, "an op of ", rows, " x ", cols, " numbers: too many for one launch");
  const dim3 grid(static_cast<unsigned>(blocks));
  if (by_fours) {
    launch(each_pack<4, Operation>, grid, kThreads, 0, stream, operation, cols, static_cast<unsigned>(blocks_of_row));
  } else {
    launch(each_pack<1, Operation>, grid, kThreads, 0, stream, operation, cols, static_cast<unsigned>(blocks_of_row));
  }
}

template <class T>
bool by_fours(Matrix<T> x) {
  return cuda::by_fours(x.data, x.stride, x.cols);
}
bool by_fours(const Output& out) { return cuda::by_fours(out.data, out.stride, out.cols, dtype_bytes(out.dtype)); }

template <class Number>
struct Embed {
  Matrix<float> out;
  const Number* table;
  int64_t pitch;
  int64_t num_rows;
  const int32_t* tokens;
  const float* chosen;
  int64_t first;
  float scale;

  template <int kWidth>
  __device__ void at(int64_t row, int64_t col) const {
    int64_t token = tokens[row];
    if (token < kChosenToken / 2) token = static_cast<int32_t>(chosen[token - kChosenToken]);
    token -= first;
    Pack<float, kWidth> pack{};
    if (token >= 0 && token < num_rows) {
      const Pack<Number, kWidth> stored = load_pack<kWidth>(table + token * pitch + col);
      for (int i = 0; i < kWidth; ++i) pack.numbers[i] = to_float(stored.numbers[i]) * scale;
    }
    store_pack<kWidth>(out.row(row) + col, pack);
  }
};

struct TakeRows {
  Matrix<float> out;
  Matrix<const float> x;
  const int32_t* rows;

  template <int kWidth>
  __device__ void at(int64_t row, int64_t col) const {
    store_pack<kWidth>(out.row(row) + col, load_pack<kWidth>(x.row(rows[row]) + col));
  }
};

struct Sum {
  static constexpr int kMostParts = 64;
  Matrix<float> out;
  Matrix<const float> parts[kMostParts];
  int num_parts;
  const float* bias;  // or null
  bool accumulate;

  template <int kWidth>
  __device__ void at(int64_t row, int64_t col) const {
    Pack<float, kWidth> total = tree_sum_up_to<kMostParts>(num_parts, [&](int part) { return load_pack<kWidth>(parts[part].row(row) + col); });
    if (bias) total = add(total, load_pack<kWidth>(bias + col));
    if (accumulate) total = add(load_pack<kWidth>(out.row(row) + col), total);
    store_pack<kWidth>(out.row(row) + col, total);
  }
};

struct Gate {
  Output out;
  Matrix<const float> x;
  Activation activation;

  template <int kWidth>
  __device__ void at(int64_t row, int64_t col) const {
    const Pack<float, kWidth> gates = load_pack<kWidth>(x.row(row) + col);
    Pack<float, kWidth> pack = load_pack<kWidth>(x.row(row) + out.cols + col);
    for (int i = 0; i < kWidth; ++i) pack.numbers[i] = activate(gates.numbers[i], activation) * pack.numbers[i];
    store_rounded<kWidth>(out.data, out.dtype, row * out.stride + col, pack);
  }
};

struct Finish {
  Output out;
  Matrix<const float> x;
  Epilogue epilogue;

  template <int kWidth>
  __device__ void at(int64_t row, int64_t col) const {
    Pack<float, kWidth> pack = load_pack<kWidth>(x.row(row) + col);
    activate_all(pack.numbers, epilogue);
    store_rounded<kWidth>(out.data, out.dtype, row * out.stride + col, pack);
  }
};

struct Scale {
  Matrix<float> x;
  float factor;

  template <int kWidth>
  __device__ void at(int64_t row, int64_t col) const {
    Pack<float, kWidth> pack = load_pack<kWidth>(x.row(row) + col);
    for (int i = 0; i < kWidth; ++i) pack.numbers[i] *= factor;
    store_pack<kWidth>(x.row(row) + col, pack);
  }
};

struct Softcap {
  Matrix<float> x;
  float cap;

  template <int kWidth>
  __device__ void at(int64_t row, int64_t col) const {
    Pack<float, kWidth> pack = load_pack<kWidth>(x.row(row) + col);
    for (int i = 0; i < kWidth; ++i) pack.numbers[i] = cap * tanhf(pack.numbers[i] * (1.0f / cap));
    store_pack<kWidth>(x.row(row) + col, pack);
  }
};

}  // namespace

void embed(cudaStream_t stream, Matrix<float> out, const PackedWeight& table, Span<const int32_t> tokens, Span<const float> chosen,
           int64_t first, float scale) {
  with_type(table.dtype, [&](auto* type) {
    using Number = std::remove_pointer_t<decltype(type)>;
    const Embed<Number> operation{out, static_cast<const Number*>(table.data), row_pitch(table.cols), table.rows, tokens.data, chosen.data, first, scale};
    run(stream, operation, out.rows, out.cols, by_fours(out));
  });
}

void take_rows(cudaStream_t stream, Matrix<float> out, Matrix<const float> x, Span<const int32_t> rows) {
  run(stream, TakeRows{out, x, rows.data}, out.rows, out.cols, by_fours(out) && by_fours(x));
}

void sum(cudaStream_t stream, Matrix<float> out, Span<const Matrix<const float>> parts, Span<const float> bias, Epilogue epilogue) {
  check(parts.size <= Sum::kMostParts, "sum: expected at most ", Sum::kMostParts, " parts, got ", parts.size);
  Sum operation{out, {}, static_cast<int>(parts.size), bias.data, epilogue == Epilogue::accumulate};
  bool fours = by_fours(out) && by_fours(bias.data, 0, out.cols);
  for (int64_t i = 0; i < parts.size; ++i) {
    operation.parts[i] = parts[i];
    fours = fours && by_fours(parts[i]);
  }
  run(stream, operation, out.rows, out.cols, fours);
}

void gate(cudaStream_t stream, Output out, Matrix<const float> x, Activation activation) {
  run(stream, Gate{out, x, activation}, out.rows, out.cols, by_fours(out) && by_fours(x));
}

void finish(cudaStream_t stream, Output out, Matrix<const float> x, Epilogue epilogue) {
  run(stream, Finish{out, x, epilogue}, x.rows, x.cols, by_fours(out) && by_fours(x));
}

void scale(cudaStream_t stream, Matrix<float> x, float factor) { run(stream, Scale{x, factor}, x.rows, x.cols, by_fours(x)); }

void softcap(cudaStream_t stream, Matrix<float> x, float cap) { run(stream, Softcap{x, cap}, x.rows, x.cols, by_fours(x)); }

}  // namespace cuda
}  // namespace parley

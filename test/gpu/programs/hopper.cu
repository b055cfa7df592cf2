// hopper.h: a product of 64 rows by TMA, barriers and wgmma against float64, for both types and every number of columns, and with the bits of mma.sync,
// which attention asks for. The same with A in registers and B turned.
#include "cuda/hopper.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda/launch.h"
#include "cuda/mma.h"
#include "weights.h"

namespace {

using namespace parley;
using namespace parley::cuda;

constexpr int kUnit = 64;
constexpr int kTileBytes = 128 * kUnit;  // of A; of B: 128 a row
constexpr int kStages = 2;

// d [64, kCols] = A B^T. The first warpgroup multiplies, a thread of the second loads. With `from_zero` the first product is added to zeros, else stored.
template <class Number, int kCols>
__global__ void __launch_bounds__(256, 1) multiply(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, float* d, int units,
                                                   bool from_zero) {
  char* tiles = dynamic_shared<char>();
  __shared__ uint64_t full[kStages], empty[kStages];
  constexpr int kStageBytes = kTileBytes + (kCols < 8 ? 8 : kCols) * 128;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) barrier_init(&full[i], 1), barrier_init(&empty[i], 128);
    barrier_init_fence();
  }
  __syncthreads();
  wait_for_previous_kernel();
  if (thread >= 128) {
    give_up_registers<24>();
    if (thread > 128) return;
    for (int unit = 0; unit < units; ++unit) {
      const int stage = unit % kStages;
      char* tile = tiles + stage * kStageBytes;
      barrier_wait(&empty[stage], static_cast<uint32_t>(unit / kStages + 1) % 2);
      barrier_expect(&full[stage], kStageBytes);
      tensor_load<true>(tile, a, unit * kUnit, 0, &full[stage]);
      tensor_load(tile + kTileBytes, b, unit * kUnit, 0, &full[stage]);
    }
    return;
  }
  take_registers<200>();
  float sums[kCols / 2];
#pragma unroll
  for (float& sum : sums) sum = from_zero ? 0.0f : NAN;
  for (int unit = 0; unit < units; ++unit) {
    const int stage = unit % kStages;
    barrier_wait(&full[stage], static_cast<uint32_t>(unit / kStages) % 2);
    const uint64_t left = wgmma_descriptor(tiles + stage * kStageBytes);
    const uint64_t right = wgmma_descriptor(tiles + stage * kStageBytes + kTileBytes);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) wgmma_k16<Number, kCols>(sums, left + 2 * k, right + 2 * k, from_zero || unit + k > 0);
    wgmma_commit();
    wgmma_wait<0>();
    barrier_arrive(&empty[stage]);
  }
  wgmma_use(sums);
  sync_group(1, 128);
  const int row = thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int i = 0; i < kCols / 2; ++i) d[(row + i / 2 % 2 * 8) * kCols + i / 4 * 8 + thread % 4 * 2 + i % 2] = sums[i];
}

// The same by mma.sync: warp w does rows 16 w ..
template <class Number>
__global__ void multiply_by_mma(const Number* a, const Number* b, float* d, int rows, int cols, int known_cols, int units) {
  const int warp = static_cast<int>(threadIdx.x) / 32, g = static_cast<int>(threadIdx.x) % 32 / 4, t = static_cast<int>(threadIdx.x) % 4;
  const int pitch = units * kUnit;
  wait_for_previous_kernel();
  const auto pair = [&](const Number* matrix, int count, int row, int k) {
    return row < count ? *reinterpret_cast<const uint32_t*>(matrix + row * pitch + k) : 0u;
  };
  for (int j = 0; j < cols; j += 8) {
    float sums[4] = {};
    for (int k = 2 * t; k < pitch; k += 16) {
      const int row = 16 * warp + g;
      const uint32_t left[4] = {pair(a, rows, row, k), pair(a, rows, row + 8, k), pair(a, rows, row, k + 8), pair(a, rows, row + 8, k + 8)};
      const uint32_t right[2] = {pair(b, known_cols, j + g, k), pair(b, known_cols, j + g, k + 8)};
      mma_m16n8k16<Number>(sums, left, right);
    }
    for (int i = 0; i < 4; ++i) d[(16 * warp + g + i / 2 * 8) * cols + j + 2 * t + i % 2] = sums[i];
  }
}

// d [64, kCols] = A B of A [64, 64] and B [64, kCols].
template <class Number, int kCols>
__global__ void __launch_bounds__(128, 1) multiply_turned(const __grid_constant__ CUtensorMap b, const Number* a, float* d) {
  char* tiles = dynamic_shared<char>();
  __shared__ uint64_t full;
  const int thread = static_cast<int>(threadIdx.x), row = thread / 32 * 16 + thread % 32 / 4, pair = thread % 4 * 2;
  if (thread == 0) barrier_init(&full, 1), barrier_init_fence();
  __syncthreads();
  wait_for_previous_kernel();
  if (thread == 0) {
    barrier_expect(&full, (kCols + kUnit - 1) / kUnit * kTileBytes);
    for (int col = 0; col < kCols; col += kUnit) tensor_load(tiles + col / kUnit * kTileBytes, b, col, 0, &full);
  }
  barrier_wait(&full, 0);
  float sums[kCols / 2];
  uint32_t left[4][4];
  for (int k = 0; k < 4; ++k) {
    for (int r = 0; r < 4; ++r) left[k][r] = *reinterpret_cast<const uint32_t*>(a + (row + r % 2 * 8) * kUnit + 16 * k + r / 2 * 8 + pair);
    wgmma_use(left[k]);
  }
  const uint64_t right = wgmma_turned_descriptor(tiles, kTileBytes);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; ++k) wgmma_k16<Number, kCols, true>(sums, left[k], right + static_cast<uint64_t>(128 * k), k > 0);
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_use(sums);
#pragma unroll
  for (int i = 0; i < kCols / 2; ++i) d[(row + i / 2 % 2 * 8) * kCols + i / 4 * 8 + pair + i % 2] = sums[i];
}

template <class Number, int kCols>
void test_turned(DType dtype) {
  const Weight a(64, kUnit, dtype);
  std::vector<Number> rows(kUnit * kCols), columns(kUnit * kCols);  // B, and turned as multiply_by_mma has it
  for (int64_t k = 0; k < kUnit; ++k) {
    for (int64_t col = 0; col < kCols; ++col) {
      const float number = normal();
      store_number(rows.data(), k * kCols + col, dtype, number);
      store_number(columns.data(), col * kUnit + k, dtype, number);
    }
  }
  const Both<Number> b(rows), turned(columns);
  Both<float> out(std::vector<float>(64 * kCols, NAN)), expected(std::vector<float>(64 * kCols, NAN));
  launch(multiply_turned<Number, kCols>, dim3(1), dim3(128), 2 * kTileBytes, nullptr, tensor_map(b.device, dtype, kUnit, kCols, kUnit),
         reinterpret_cast<const Number*>(a.packed.device), out.device);
  launch(multiply_by_mma<Number>, dim3(1), dim3(128), 0, nullptr, reinterpret_cast<const Number*>(a.packed.device), static_cast<const Number*>(turned.device),
         expected.device, 64, kCols, kCols, 1);
  out.read(), expected.read();
  expect(same(out.host, expected.host.data()), "%s, %d columns: turned, wgmma has other bits than mma.sync", dtype_name(dtype), kCols);
}

template <class Number, int kCols>
void test(DType dtype) {
  constexpr int64_t kRows = 60, kUnits = 5;  // rows behind 60, and the last 3 of B, are zeros
  const Weight a(kRows, kUnits * kUnit, dtype), b(kCols - 3, kUnits * kUnit, dtype);
  const CUtensorMap a_map = tensor_map(a.packed.device, dtype, a.rows, a.cols, 64), b_map = tensor_map(b.packed.device, dtype, b.rows, b.cols, kCols);
  std::vector<float> outs[3];
  for (int i = 0; i < 3; ++i) {
    Both<float> out(std::vector<float>(64 * kCols, NAN));
    if (i < 2) {
      launch(multiply<Number, kCols>, dim3(1), dim3(256), kStages * (kTileBytes + kCols * 128), nullptr, a_map, b_map, out.device, int{kUnits},
             i == 1);
    } else {
      launch(multiply_by_mma<Number>, dim3(1), dim3(128), 0, nullptr, reinterpret_cast<const Number*>(a.packed.device),
             reinterpret_cast<const Number*>(b.packed.device), out.device, int{kRows}, kCols, kCols - 3, int{kUnits});
    }
    out.read();
    outs[i] = out.host;
  }
  double worst = 0;
  for (int64_t row = 0; row < 64; ++row) {
    for (int64_t col = 0; col < kCols; ++col) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < a.cols && row < a.rows && col < b.rows; ++k) {
        const double product = double{a.numbers[static_cast<size_t>(row * a.cols + k)]} * b.numbers[static_cast<size_t>(col * b.cols + k)];
        sum += product, size += std::fabs(product);
      }
      const double error = std::fabs(outs[0][static_cast<size_t>(row * kCols + col)] - sum) / (size * static_cast<double>(2 * a.cols) * 0x1p-24 + 1e-30);
      if (!(error <= worst)) worst = error;
    }
  }
  expect(worst < 1, "%s, %d columns: error %g of the bound", dtype_name(dtype), kCols, worst);
  expect(same(outs[0], outs[1].data()), "%s, %d columns: sums from zero have other bits", dtype_name(dtype), kCols);
  expect(same(outs[0], outs[2].data()), "%s, %d columns: mma.sync has other bits", dtype_name(dtype), kCols);
}

template <class Number>
void test_type(DType dtype) {
  test<Number, 8>(dtype);
  test<Number, 16>(dtype);
  test<Number, 32>(dtype);
  test<Number, 64>(dtype);
  test<Number, 128>(dtype);
  test<Number, 256>(dtype);
  test_turned<Number, 64>(dtype);
  test_turned<Number, 80>(dtype);
  test_turned<Number, 96>(dtype);
  test_turned<Number, 128>(dtype);
}

}  // namespace

int main() {
#ifdef PARLEY_CUDA_EMULATED
  setenv("PARLEY_EMULATED_CAPABILITY", "90", 1);
#endif
  if (runs_hopper_kernels()) {
    test_type<__half>(DType::float16);
    test_type<__nv_bfloat16>(DType::bfloat16);
  } else {
    std::printf("not a GPU of compute capability 9.0: nothing to test\n");
  }
  if (failures) return 1;
  std::printf("hopper: ok\n");
}

// Packer: rows of many runs through small buffers, every pair of types, against the packed layout computed here.
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "base/dtype.h"
#include "cuda/pack.h"
#include "cuda/packed_weight.h"
#include "cuda/status.h"

namespace {

using parley::check;
using parley::DType;
using parley::PackedWeight;
using parley::StoredRows;

constexpr int64_t kBufferBytes = 4096;

struct Matrix {
  PackedWeight weight;
  DType stored_dtype;
  std::vector<char> stored;  // [rows, stride]
  int64_t stride;
};

Matrix make_matrix(DType stored, DType packed, int64_t rows, int64_t cols, std::mt19937& random) {
  Matrix matrix;
  matrix.stored_dtype = stored;
  matrix.stride = cols * parley::dtype_bytes(stored) + 6;  // at no multiple of anything
  matrix.stored.resize(static_cast<size_t>(rows * matrix.stride));
  std::uniform_real_distribution<float> number(-3, 3);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<char> row(static_cast<size_t>(cols) * 4);
    for (int64_t c = 0; c < cols; ++c) parley::store_number(row.data(), c, stored, number(random));
    std::memcpy(matrix.stored.data() + r * matrix.stride, row.data(), static_cast<size_t>(cols * parley::dtype_bytes(stored)));
  }
  matrix.weight = {nullptr, packed, rows, cols};
  void* data;
  check(cudaMalloc(&data, static_cast<size_t>(parley::cuda::packed_weight_bytes(rows, cols, packed))), "memory");
  matrix.weight.data = data;
  return matrix;
}

// Whether the weight is the stored one, every number rounded to its type and zeros behind each row.
bool is_packed(const Matrix& matrix) {
  const PackedWeight& weight = matrix.weight;
  const int64_t bytes = parley::cuda::packed_weight_bytes(weight.rows, weight.cols, weight.dtype);
  std::vector<char> packed(static_cast<size_t>(bytes)), expected(static_cast<size_t>(bytes));
  check(cudaMemcpy(packed.data(), weight.data, packed.size(), cudaMemcpyDeviceToHost), "download");
  for (int64_t r = 0; r < weight.rows; ++r) {
    std::vector<char> row(static_cast<size_t>(weight.cols) * 4);
    std::memcpy(row.data(), matrix.stored.data() + r * matrix.stride, static_cast<size_t>(matrix.stride - 6));
    for (int64_t c = 0; c < weight.cols; ++c) {
      const float number = parley::load_number(row.data(), c, matrix.stored_dtype);
      parley::store_number(expected.data(), r * parley::cuda::row_pitch(weight.cols) + c, weight.dtype, number);
    }
  }
  return packed == expected;
}

int run() {
  std::mt19937 random(std::random_device{}());
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  int failures = 0;
  {
    parley::cuda::Packer packer(stream, kBufferBytes);
    const DType types[] = {DType::float32, DType::float16, DType::bfloat16};
    for (const DType stored : types) {
      for (const DType packed : types) {
        std::vector<Matrix> matrices;
        // Rows longer than a buffer, runs longer than a buffer, and many that share one.
        for (const auto& [rows, cols] : {std::pair{3, 3000}, std::pair{200, 65}, std::pair{7, 64}, std::pair{1, 1}, std::pair{33, 130}}) {
          matrices.push_back(make_matrix(stored, packed, rows, cols, random));
        }
        std::vector<StoredRows> runs;
        for (const Matrix& matrix : matrices) {
          for (int64_t row = 0; row < matrix.weight.rows;) {
            const int64_t count = std::min<int64_t>(std::uniform_int_distribution<int>(1, 40)(random), matrix.weight.rows - row);
            runs.push_back({matrix.weight, row, count, matrix.stored.data() + row * matrix.stride, stored, matrix.stride});
            row += count;
          }
        }
        std::shuffle(runs.begin(), runs.end(), random);
        const auto half = static_cast<int64_t>(runs.size() / 2);
        packer.pack_rows({runs.data(), half});
        packer.pack_rows({runs.data() + half, static_cast<int64_t>(runs.size()) - half});
        check(cudaStreamSynchronize(stream), "wait");
        for (const Matrix& matrix : matrices) {
          if (!is_packed(matrix)) {
            std::printf("pack: FAILED: [%d, %d] from type %d to %d\n", static_cast<int>(matrix.weight.rows),
                        static_cast<int>(matrix.weight.cols), static_cast<int>(stored), static_cast<int>(packed));
            ++failures;
          }
          check(cudaFree(matrix.weight.data), "memory");
        }
      }
    }
    packer.release();
    size_t free_bytes = 0, total_bytes = 0;
    check(cudaMemGetInfo(&free_bytes, &total_bytes), "memory");
#ifdef PARLEY_CUDA_EMULATED
    if (free_bytes != total_bytes) {
      std::printf("pack: FAILED: the buffers are not given back\n");
      ++failures;
    }
#endif
  }
  check(cudaStreamDestroy(stream), "stream");
  return failures;
}

}  // namespace

int main() {
  try {
    if (run() > 0) return 1;
  } catch (const parley::Error& error) {
    std::printf("pack: %s\n", error.what());
    return 1;
  }
  std::printf("pack: ok\n");
  return 0;
}

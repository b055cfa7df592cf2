#include "cuda/rope.h"

#include "base/arithmetic.h"
#include "cuda/kv_layout.h"
#include "cuda/launch.h"
#include "cuda/numbers.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// Blocks along x: a part of one row each.
struct Blocks {
  int64_t of_row;
  dim3 grid;
};
Blocks blocks_for(int64_t rows, int64_t items_of_row) {
  const int64_t of_row = ceil_div(items_of_row, kThreads);
  const int64_t blocks = checked_mul(rows, of_row);
  check(blocks <= 0x7fffffff, "an op of ", rows, " x ", items_of_row, " numbers: too many for one launch");
  return {of_row, dim3(static_cast<unsigned>(blocks))};
}

// A thread has one pair of one head.
template <bool kInterleaved>
__global__ void __launch_bounds__(kThreads) rotate(Matrix<float> qkv, const int32_t* positions, Matrix<const float> cos_sin, int num_pairs,
                                                   int half, int head_dim, int64_t blocks_of_row) {
  wait_for_previous_kernel();
  const int64_t row = static_cast<int64_t>(blockIdx.x) / blocks_of_row;
  const int pair = static_cast<int>(static_cast<int64_t>(blockIdx.x) % blocks_of_row * kThreads + threadIdx.x);
  if (pair >= num_pairs) return;
  const int i = pair % half;
  const float* table = cos_sin.row(positions[row]);
  float* head = qkv.row(row) + static_cast<int64_t>(pair / half) * head_dim;
  float* a_at = head + (kInterleaved ? 2 * i : i);
  float* b_at = kInterleaved ? a_at + 1 : a_at + half;
  const float a = *a_at;
  const float b = *b_at;
  const float cosine = table[i];
  const float sine = table[half + i];
  *a_at = fmaf(a, cosine, -(b * sine));
  *b_at = fmaf(b, cosine, a * sine);
}

// A thread has kWidth numbers of one key and of its value.
template <class Number, int kWidth>
__global__ void __launch_bounds__(kThreads) write_pages(Number* keys, Number* values, Matrix<const float> qkv, const int32_t* slots,
                                                        HeadLayout heads, int64_t blocks_of_row) {
  wait_for_previous_kernel();
  const int64_t row = static_cast<int64_t>(blockIdx.x) / blocks_of_row;
  const int64_t at = (static_cast<int64_t>(blockIdx.x) % blocks_of_row * kThreads + threadIdx.x) * kWidth;
  const int32_t slot = slots[row];
  if (at >= heads.kv_size() || slot < 0) return;
  const int64_t to = kv_index(slot / kPageSize, at / heads.head_dim, slot % kPageSize, at % heads.head_dim, heads.num_kv_heads, heads.head_dim);
  const float* key = qkv.row(row) + heads.query_size() + at;
  const Pack<float, kWidth> from_key = load_pack<kWidth>(key);
  const Pack<float, kWidth> from_value = load_pack<kWidth>(key + heads.kv_size());
  Pack<Number, kWidth> to_key, to_value;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    to_key.numbers[i] = from_float<Number>(from_key.numbers[i]);
    to_value.numbers[i] = from_float<Number>(from_value.numbers[i]);
  }
  store_pack<kWidth>(keys + to, to_key);
  store_pack<kWidth>(values + to, to_value);
}

}  // namespace

void rope(cudaStream_t stream, Matrix<float> qkv, Span<const int32_t> positions, Matrix<const float> cos_sin, HeadLayout heads,
          RopeLayout layout) {
  const int64_t half = heads.rope_dims / 2;
  const int64_t num_pairs = (heads.num_heads + heads.num_kv_heads) * half;
  if (num_pairs == 0 || qkv.rows == 0) return;
  const Blocks blocks = blocks_for(qkv.rows, num_pairs);
  launch(layout == RopeLayout::interleaved ? rotate<true> : rotate<false>, blocks.grid, kThreads, 0, stream, qkv, positions.data, cos_sin,
         num_pairs, half, heads.head_dim, blocks.of_row);
}

void write_kv(cudaStream_t stream, const KvLayer& kv, Matrix<const float> qkv, Span<const int32_t> slots, HeadLayout heads) {
  if (qkv.rows == 0) return;
  // The first key must be aligned for a pack, and so must every page.
  const bool fours = by_fours(qkv.data + heads.query_size(), qkv.stride, heads.head_dim);
  const Blocks blocks = blocks_for(qkv.rows, heads.kv_size() / (fours ? 4 : 1));
  with_type(kv.dtype, [&](auto* type) {
    using Number = std::remove_pointer_t<decltype(type)>;
    launch(fours ? write_pages<Number, 4> : write_pages<Number, 1>, blocks.grid, kThreads, 0, stream, static_cast<Number*>(kv.keys),
           static_cast<Number*>(kv.values), qkv, slots.data, heads, blocks.of_row);
  });
}

void copy_page(cudaStream_t stream, const KvLayer& kv, int64_t from, int64_t to, HeadLayout heads) {
  const int64_t bytes = heads.kv_size() * kPageSize * dtype_bytes(kv.dtype);
  for (void* pages : {kv.keys, kv.values}) {
    char* first = static_cast<char*>(pages);
    check(cudaMemcpyAsync(first + to * bytes, first + from * bytes, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream),
          "copy of a KV page");
  }
}

}  // namespace cuda
}  // namespace parley

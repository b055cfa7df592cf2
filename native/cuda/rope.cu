#include "cuda/rope.h"

#include "base/arithmetic.h"
#include "cuda/kv_layout.h"
#include "cuda/launch.h"
#include "cuda/numbers.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// Of heads that are rotated, written into pages, or both.
template <class Number>
struct HeadsCall {
  Matrix<float> qkv;
  const int32_t* positions;    // of rows
  Matrix<const float> cos_sin;
  int half;                    // pairs of a head that are rotated; 0: none
  Number* keys;                // pages, or null: nothing is written
  Number* values;
  const int32_t* slots;        // of rows
  int num_heads, num_kv_heads, head_dim;

  // What threads do for a head, each with kWidth pairs or kWidth numbers that are no pairs. Without pages there are only pairs.
  __host__ __device__ int pair_units(int width) const { return half / width; }
  __host__ __device__ int query_units(int width) const { return num_heads * pair_units(width); }
  __host__ __device__ int key_units(int width) const { return keys ? (head_dim - half) / width : pair_units(width); }
  __host__ __device__ int value_units(int width) const { return keys ? head_dim / width : 0; }
  __host__ __device__ int row_units(int width) const {
    return query_units(width) + num_kv_heads * (key_units(width) + value_units(width));
  }
};

template <class Number, int kWidth, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) place_heads(HeadsCall<Number> call, int blocks_of_row) {
  start_next_kernel(call.qkv.rows);
  wait_for_previous_kernel();
  const int row = static_cast<int>(blockIdx.x) / blocks_of_row;
  int unit = static_cast<int>(blockIdx.x) % blocks_of_row * kThreads + static_cast<int>(threadIdx.x);
  const int query_units = call.query_units(kWidth), key_units = call.key_units(kWidth), value_units = call.value_units(kWidth);
  int head = 0;            // in the row
  int units_of_head = 0;
  if (unit < query_units) {
    units_of_head = call.pair_units(kWidth);
  } else if ((unit -= query_units) < call.num_kv_heads * key_units) {
    units_of_head = key_units;
    head = call.num_heads;
  } else if ((unit -= call.num_kv_heads * key_units) < call.num_kv_heads * value_units) {
    units_of_head = value_units;
    head = call.num_heads + call.num_kv_heads;
  } else {
    return;
  }
  head += unit / units_of_head;
  unit %= units_of_head;
  const bool is_value = head >= call.num_heads + call.num_kv_heads;
  float* numbers = call.qkv.row(row) + static_cast<int64_t>(head) * call.head_dim;
  const int32_t slot = call.keys && head >= call.num_heads ? call.slots[row] : -1;
  const auto write = [&](int dim, const Pack<float, kWidth>& pack) {
    if (slot < 0) return;
    const int kv_head = (head - call.num_heads) % call.num_kv_heads;
    Pack<Number, kWidth> stored;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) stored.numbers[i] = from_float<Number>(pack.numbers[i]);
    store_pack<kWidth>((is_value ? call.values : call.keys) +
                           kv_index(slot / kPageSize, kv_head, slot % kPageSize, dim, call.num_kv_heads, call.head_dim),
                       stored);
  };

  const int pair = unit * kWidth;  // the first
  if (is_value || pair >= call.half) {
    const int dim = is_value ? pair : call.half + pair;
    write(dim, load_pack<kWidth>(numbers + dim));
    return;
  }
  const int dims[2] = {kInterleaved ? 2 * pair : pair, kInterleaved ? 2 * pair + kWidth : call.half + pair};
  const float* table = call.cos_sin.row(call.positions[row]);
  const Pack<float, kWidth> cosine = load_pack<kWidth>(table + pair), sine = load_pack<kWidth>(table + call.half + pair);
  Pack<float, kWidth> packs[2] = {load_pack<kWidth>(numbers + dims[0]), load_pack<kWidth>(numbers + dims[1])};
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int at_a = kInterleaved ? 2 * i : i, at_b = kInterleaved ? 2 * i + 1 : kWidth + i;
    float& a_at = packs[at_a / kWidth].numbers[at_a % kWidth];
    float& b_at = packs[at_b / kWidth].numbers[at_b % kWidth];
    const float a = a_at, b = b_at;
    a_at = fmaf(a, cosine.numbers[i], -(b * sine.numbers[i]));
    b_at = fmaf(b, cosine.numbers[i], a * sine.numbers[i]);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    store_pack<kWidth>(numbers + dims[i], packs[i]);
    write(dims[i], packs[i]);
  }
}

template <class Number>
void start(cudaStream_t stream, const HeadsCall<Number>& call, RopeLayout layout) {
  // A pair's numbers, the first key and every page must be aligned for a pack.
  const bool fours = by_fours(call.qkv.data, call.qkv.stride, call.head_dim) && call.half % 4 == 0 &&
                     (call.half == 0 || by_fours(call.cos_sin.data, call.cos_sin.stride, 2 * call.half));
  const int64_t units = call.row_units(fours ? 4 : 1);
  if (units == 0 || call.qkv.rows == 0) return;
  const int64_t blocks_of_row = ceil_div(units, kThreads);
  const int64_t blocks = checked_mul(call.qkv.rows, blocks_of_row);
  check(blocks <= 0x7fffffff, "heads of ", call.qkv.rows, " rows: too many for one launch");
  const bool interleaved = layout == RopeLayout::interleaved;
  launch(fours ? (interleaved ? place_heads<Number, 4, true> : place_heads<Number, 4, false>)
               : (interleaved ? place_heads<Number, 1, true> : place_heads<Number, 1, false>),
         dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, call, blocks_of_row);
}

template <class Number>
HeadsCall<Number> make_call(Matrix<float> qkv, HeadLayout heads) {
  check(heads.qkv_size() <= 0x7fffffff, "heads of ", heads.qkv_size(), " numbers: too many");
  HeadsCall<Number> call{};
  call.qkv = qkv;
  call.num_heads = static_cast<int>(heads.num_heads);
  call.num_kv_heads = static_cast<int>(heads.num_kv_heads);
  call.head_dim = static_cast<int>(heads.head_dim);
  return call;
}

template <class Number>
void rotate(HeadsCall<Number>& call, Span<const int32_t> positions, Matrix<const float> cos_sin, HeadLayout heads) {
  call.positions = positions.data;
  call.cos_sin = cos_sin;
  call.half = static_cast<int>(heads.rope_dims / 2);
}

// start_call(call that writes into the pages)
template <class Start>
void write(const KvLayer& kv, Matrix<float> qkv, Span<const int32_t> slots, HeadLayout heads, const Start& start_call) {
  with_type(kv.dtype, [&](auto* type) {
    using Number = std::remove_pointer_t<decltype(type)>;
    HeadsCall<Number> call = make_call<Number>(qkv, heads);
    call.keys = static_cast<Number*>(kv.keys);
    call.values = static_cast<Number*>(kv.values);
    call.slots = slots.data;
    start_call(call);
  });
}

}  // namespace

void rope(cudaStream_t stream, Matrix<float> qkv, Span<const int32_t> positions, Matrix<const float> cos_sin, HeadLayout heads,
          RopeLayout layout) {
  auto call = make_call<float>(qkv, heads);
  rotate(call, positions, cos_sin, heads);
  start(stream, call, layout);
}

void write_kv(cudaStream_t stream, const KvLayer& kv, Matrix<const float> qkv, Span<const int32_t> slots, HeadLayout heads) {
  const Matrix<float> unchanged(const_cast<float*>(qkv.data), qkv.rows, qkv.cols, qkv.stride);  // nothing is rotated
  write(kv, unchanged, slots, heads, [&](auto& call) { start(stream, call, RopeLayout::half_split); });
}

void rope_and_write_kv(cudaStream_t stream, const KvLayer& kv, Matrix<float> qkv, Span<const int32_t> positions,
                       Matrix<const float> cos_sin, Span<const int32_t> slots, HeadLayout heads, RopeLayout layout) {
  write(kv, qkv, slots, heads, [&](auto& call) {
    rotate(call, positions, cos_sin, heads);
    start(stream, call, layout);
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

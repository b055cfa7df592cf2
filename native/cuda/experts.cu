#include "cuda/experts.h"

#include <algorithm>

#include "base/arithmetic.h"
#include "base/check.h"
#include "cuda/elementwise.h"
#include "cuda/launch.h"

namespace parley {
namespace cuda {
namespace {

// Every pair of a token and one of its experts is a row; those of one expert stand together, in order of their tokens.
struct ExpertOrder {
  int32_t* rows;      // [T, k]: the row of each pair
  int32_t* tokens;    // [T * k]: of each row
  ExpertTile* tiles;  // at most [T * k], for none is empty
  int32_t* num_tiles;

  static constexpr int64_t kNumbersOfPair = 2 + sizeof(ExpertTile) / sizeof(int32_t);
  static int64_t numbers(int64_t num_pairs) { return checked_add(checked_mul(num_pairs, kNumbersOfPair), 1); }

  ExpertOrder(int32_t* memory, int64_t num_pairs)
      : rows(memory),
        tokens(memory + num_pairs),
        tiles(reinterpret_cast<ExpertTile*>(memory + 2 * num_pairs)),
        num_tiles(memory + kNumbersOfPair * num_pairs) {}
};

constexpr int kSortThreads = 512;
constexpr int kSortWarps = kSortThreads / 32;
static_assert(kMaxExperts <= kSortThreads, "a thread an expert");

// Of a lane's number among the warp's 32: how many lanes before it have the same, and whether one behind it has.
struct Place {
  int before;
  bool last;
};
__device__ Place place_among_equals(int number) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Place place{0, true};
  for (int other = 0; other < 32; ++other) {
    const bool equal = __shfl_sync(0xffffffffu, number, other) == number;
    place.before += equal && other < lane;
    place.last &= !(equal && other > lane);
  }
  return place;
}

// One block: counts each expert's pairs, warp by warp, and gives every pair its row and every expert its tiles of `tile_rows` rows.
__global__ void __launch_bounds__(kSortThreads) sort_kernel(Matrix<const int32_t> experts, int num_experts, int tile_rows,
                                                            ExpertOrder order) {
  wait_for_previous_kernel();
  __shared__ int next[kSortWarps][kMaxExperts];  // pairs of an expert in a warp's part of the list; then its next row there
  __shared__ int row_sums[kSortThreads];         // of experts up to this one
  __shared__ int tile_sums[kSortThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int num_pairs = static_cast<int>(experts.rows * experts.cols);
  const int part = (num_pairs + kSortThreads - 1) / kSortThreads * 32;
  const int begin = min(warp * part, num_pairs);
  const int end = min(begin + part, num_pairs);
  const auto expert_of = [&](int pair) {
    return pair < end ? experts.row(pair / experts.cols)[pair % experts.cols] : -1;
  };

  for (int i = thread; i < kSortWarps * num_experts; i += kSortThreads) next[i / num_experts][i % num_experts] = 0;
  __syncthreads();
  for (int first = begin; first < end; first += 32) {
    const int expert = expert_of(first + thread % 32);
    const Place place = place_among_equals(expert);
    if (expert >= 0 && place.last) next[warp][expert] += place.before + 1;
    __syncwarp();
  }
  __syncthreads();

  int count = 0;
  if (thread < num_experts) {
    for (int w = 0; w < kSortWarps; ++w) {
      const int of_warp = next[w][thread];
      next[w][thread] = count;
      count += of_warp;
    }
  }
  const int count_tiles = (count + tile_rows - 1) / tile_rows;
  row_sums[thread] = count;
  tile_sums[thread] = count_tiles;
  __syncthreads();
  for (int step = 1; step < kSortThreads; step *= 2) {
    const int rows = thread >= step ? row_sums[thread - step] : 0;
    const int tiles = thread >= step ? tile_sums[thread - step] : 0;
    __syncthreads();
    row_sums[thread] += rows;
    tile_sums[thread] += tiles;
    __syncthreads();
  }
  const int first_row = row_sums[thread] - count;
  if (thread < num_experts) {
    for (int w = 0; w < kSortWarps; ++w) next[w][thread] += first_row;
    for (int i = 0; i < count_tiles; ++i) {
      order.tiles[tile_sums[thread] - count_tiles + i] = {thread, first_row + i * tile_rows, min(tile_rows, count - i * tile_rows)};
    }
  }
  if (thread == kSortThreads - 1) *order.num_tiles = tile_sums[thread];
  __syncthreads();

  for (int first = begin; first < end; first += 32) {
    const int pair = first + thread % 32;
    const int expert = expert_of(pair);
    const Place place = place_among_equals(expert);
    const int row = expert >= 0 ? next[warp][expert] + place.before : 0;
    __syncwarp();
    if (expert >= 0) {
      order.rows[pair] = row;
      order.tokens[row] = static_cast<int>(pair / experts.cols);
      if (place.last) next[warp][expert] = row + 1;
    }
    __syncwarp();
  }
}

constexpr int kThreads = 256;

// out[t, i] += sum over j of shares[t, j] x[rows[t, j], i], in order of j.
__global__ void __launch_bounds__(kThreads) add_shares_kernel(Matrix<float> out, Matrix<const float> x, const int32_t* rows,
                                                              Matrix<const float> shares) {
  wait_for_previous_kernel();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= out.rows * out.cols) return;
  const int64_t token = index / out.cols;
  const int64_t col = index % out.cols;
  float sum = 0.0f;
  for (int64_t j = 0; j < shares.cols; ++j) sum = fmaf(shares.row(token)[j], x.row(rows[token * shares.cols + j])[col], sum);
  out.row(token)[col] += sum;
}

}  // namespace

int64_t Experts::scratch_bytes(const ScratchLimits& limits) const {
  check(limits.num_experts <= kMaxExperts, "a mixture of ", limits.num_experts, " experts: on a GPU there can be ", kMaxExperts);
  const int64_t outer = checked_mul(limits.expert_rows, limits.expert_hidden);
  const int64_t inner = checked_mul(limits.expert_rows, 2 * limits.expert_size);
  return checked_mul(checked_add(checked_add(ExpertOrder::numbers(limits.expert_rows), outer), inner), 4);
}

void Experts::reserve_scratch(const ScratchLimits& limits) {
  order_.reserve<int32_t>(ExpertOrder::numbers(limits.expert_rows));
  outer_.reserve<float>(checked_mul(limits.expert_rows, limits.expert_hidden));
  inner_.reserve<float>(checked_mul(limits.expert_rows, 2 * limits.expert_size));
}

void Experts::mix(Matrix<float> out, Matrix<const float> x, Matrix<const int32_t> experts, Matrix<const float> shares,
                  Span<const ExpertWeights> weights, Activation activation) {
  if (x.rows == 0) return;
  check(weights.size <= kMaxExperts, "mix_experts: ", weights.size, " experts, expected at most ", kMaxExperts);
  const int64_t num_pairs = checked_mul(experts.rows, experts.cols);
  check(num_pairs <= (1 << 30), "a mixture of experts: ", num_pairs, " rows are too many");
  const PackedWeight& gate_up = weights[0].gate_up;
  const PackedWeight& down = weights[0].down;

  // A token goes to an expert once at most, so an expert has at most x.rows rows. Tiles that are not full: one an expert.
  const int64_t tile_rows = Linear::expert_tile_rows(gate_up.dtype, x.rows);
  const int64_t max_tiles = (num_pairs + (tile_rows - 1) * std::min(weights.size, num_pairs)) / tile_rows;
  const ExpertOrder order(order_.reserve<int32_t>(ExpertOrder::numbers(num_pairs)), num_pairs);
  launch(sort_kernel, dim3(1), dim3(kSortThreads), 0, stream_, experts, static_cast<int>(weights.size), static_cast<int>(tile_rows), order);

  ExpertWeightList list{order.tiles, order.num_tiles, order.tokens, {}};
  const Matrix<float> inner(inner_.reserve<float>(num_pairs * gate_up.rows), num_pairs, gate_up.rows);
  const Matrix<float> hidden(inner.data, num_pairs, down.cols, inner.stride);  // each number replaces the gate that it comes from
  const Matrix<float> outer(outer_.reserve<float>(num_pairs * down.rows), num_pairs, down.rows);
  for (int64_t e = 0; e < weights.size; ++e) list.weights[e] = weights[e].gate_up.data;
  linear_.run_experts(inner, x, gate_up, list, x.rows, max_tiles);
  gate(stream_, hidden, inner, activation);
  list.x_rows = nullptr;
  for (int64_t e = 0; e < weights.size; ++e) list.weights[e] = weights[e].down.data;
  linear_.run_experts(outer, hidden, down, list, x.rows, max_tiles);
  launch(add_shares_kernel, dim3(static_cast<unsigned>(ceil_div(out.rows * out.cols, kThreads))), dim3(kThreads), 0, stream_, out,
         Matrix<const float>(outer), order.rows, shares);
}

}  // namespace cuda
}  // namespace parley

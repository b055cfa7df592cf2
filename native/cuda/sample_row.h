// What `sample` and `score` do with a row of logits: a block has a row, thread i the ids i, i + threads, …. No thread's part depends on
// who else is in the call, and every sum has a fixed order or is one of integers.
#pragma once

#include <cstdint>

#include "cuda/order.h"
#include "cuda/reduce.h"
#include "cuda/sample_plan.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

constexpr int kSampleThreads = 512;  // at most; fewer of a small vocabulary
constexpr float kMinTemperature = 1e-5f;
constexpr float kLargestFloat = 3.402823466e38f;
constexpr int64_t kDrawBlock = 256;  // ids whose weights are summed together
constexpr int kBins = 2048;

struct SampleResult {
  int32_t token;
  float logprob;
  int32_t rank;
  int32_t top_tokens[kMaxLogprobs];
  float top_logprobs[kMaxLogprobs];
};

// Of one call, in device memory.
struct SampleMemory {
  const SamplePlan* plans;  // [R]
  const int32_t* numbers;   // all lists
  float* raw;               // beside each of `numbers`: the logit that an adjustment replaced
  uint64_t* sums;           // [R, ceil(vocab / kDrawBlock)]
  uint32_t* allowed;        // [R, ceil(vocab / 32)] bits
  SampleResult* results;    // [R]
  float* chosen;            // [R] of sample: the tokens once more
};

struct SampleShared {
  uint32_t counts[kBins];
  uint64_t masses[kBins];
  uint64_t scratch[32];
  uint32_t found_bin;
  uint64_t found_above;  // count or mass above the bin
  uint32_t num_listed;
  uint32_t listed_keys[kMaxLogprobs];
  int32_t listed_ids[kMaxLogprobs];
  float weights[kDrawBlock];
  double total;
  int32_t token;
  int64_t block;
  double before;
};

__device__ inline int num_threads() { return static_cast<int>(blockDim.x); }

__device__ inline float infinity() { return __int_as_float(0x7f800000); }

// e^x with the bits of cpu/simd/math.h, so that weights and what is drawn by them are the CPU's.
__device__ inline float exp_as_cpu(float x) {
  if (!(x == x)) return x;
  const float clamped = fminf(fmaxf(x, -110.0f), 100.0f);
  const float n = rintf(clamped * 0x1.715476p+0f);
  const float r = fmaf(n, -0x1.7f7d1cp-20f, fmaf(n, -0x1.62e4p-1f, clamped));
  float p = 0.0013814627891406417f;
  p = fmaf(p, r, 0.008368710055947304f);
  p = fmaf(p, r, 0.04166838526725769f);
  p = fmaf(p, r, 0.1666652113199234f);
  p = fmaf(p, r, 0.4999999403953552f);
  p = fmaf(p * r, r, r) + 1.0f;
  // Times 2^n in two steps of powers that are normal numbers: the first is exact, the second rounds where the result is subnormal.
  const int power = static_cast<int>(n);
  const int first = power / 2;
  return p * __int_as_float((first + 127) << 23) * __int_as_float((power - first + 127) << 23);
}

// Weights are at most 1: sums of up to 2^22 of them are exact integers, whatever their order.
constexpr double kFixedOne = 1099511627776.0;  // 2^40
__device__ inline uint64_t fixed_of(float weight) { return static_cast<uint64_t>(static_cast<double>(weight) * kFixedOne + 0.5); }

// Keeps what lies above `key`, and of what lies at it the ids up to last_id.
struct Cut {
  uint32_t key = 0;
  int32_t last_id = 0x7fffffff;

  __device__ bool keeps(uint32_t at, int64_t id) const { return at > key || (at == key && id <= last_id); }
};

// The bin in which the running sum of `numbers` from the last bin down reaches `target`, and the sum above that bin. Where it is never
// reached: the lowest bin that has counts.
template <class Number>
__device__ void find_bin(SampleShared& shared, const Number* numbers, uint64_t target, uint64_t above) {
  __syncthreads();
  if (threadIdx.x < 32) {
    constexpr int kOfLane = kBins / 32;
    const int lane = static_cast<int>(threadIdx.x);
    const int first = kBins - 1 - lane * kOfLane;  // lane 0 has the last bins, from the last one down
    uint64_t mine = 0;
    for (int i = 0; i < kOfLane; ++i) mine += numbers[first - i];
    uint64_t until = mine;  // of this lane and those before it
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const uint64_t other = __shfl_up_sync(kAllLanes, until, static_cast<unsigned>(step));
      if (lane >= step) until += other;
    }
    uint64_t running = above + until - mine;
    int found = -1;
    int lowest = -1;
    uint64_t found_above = 0;
    uint64_t lowest_above = 0;
    for (int i = 0; i < kOfLane; ++i) {
      const int bin = first - i;
      if (shared.counts[bin] == 0) continue;
      lowest = bin;
      lowest_above = running;
      if (running + numbers[bin] >= target && found < 0) {
        found = bin;
        found_above = running;
      }
      running += numbers[bin];
    }
    const uint32_t have = __ballot_sync(kAllLanes, found >= 0);
    const uint32_t some = __ballot_sync(kAllLanes, lowest >= 0);
    const int winner = have ? __ffs(static_cast<int>(have)) - 1 : 31 - __clz(static_cast<int>(some));
    if (lane == winner) {
      shared.found_bin = static_cast<uint32_t>(have ? found : lowest);
      shared.found_above = have ? found_above : lowest_above;
    }
  }
  __syncthreads();
}

__device__ inline void clear_bins(SampleShared& shared, bool masses) {
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kBins; i += num_threads()) {
    shared.counts[i] = 0;
    if (masses) shared.masses[i] = 0;
  }
  __syncthreads();
}

// Three rounds of a radix search over a key's bits from the top.
constexpr int kRounds = 3;
__device__ inline int radix_shift(int round) { return round == 0 ? 21 : round == 1 ? 10 : 0; }
__device__ inline uint32_t radix_mask(int round) { return round == 2 ? 1023u : 2047u; }

// Of the ids that have `key`, the `ties`th from below: ids are below 2^22, two rounds of 11 bits.
template <class KeyOf>
__device__ int32_t find_tie(SampleShared& shared, int64_t n, const KeyOf& key_of, uint32_t key, uint64_t ties) {
  uint32_t prefix = 0;
  for (int round = 0; round < 2; ++round) {
    clear_bins(shared, false);
    for (int64_t id = threadIdx.x; id < n; id += num_threads()) {
      uint32_t of_id;
      if (!key_of(id, &of_id) || of_id != key) continue;
      const uint32_t reversed = 0x3fffffu - static_cast<uint32_t>(id);
      if (round == 1 && reversed >> 11 != prefix) continue;
      atomicAdd(&shared.counts[round == 0 ? reversed >> 11 : reversed & 2047u], 1u);
    }
    find_bin(shared, shared.counts, ties, 0);
    ties -= shared.found_above;
    prefix = prefix << 11 | shared.found_bin;
  }
  return static_cast<int32_t>(0x3fffffu - prefix);
}

// The cut that keeps the k first of the ids for which key_of(id, &key) holds; all of them if they are no more.
template <class KeyOf>
__device__ Cut cut_by_count(SampleShared& shared, int64_t n, const KeyOf& key_of, uint64_t k) {
  Cut cut;
  for (int round = 0; round < kRounds; ++round) {
    clear_bins(shared, false);
    const int shift = radix_shift(round);
    for (int64_t id = threadIdx.x; id < n; id += num_threads()) {
      uint32_t key;
      if (!key_of(id, &key)) continue;
      if (round > 0 && (key >> radix_shift(round - 1)) != cut.key >> radix_shift(round - 1)) continue;
      atomicAdd(&shared.counts[key >> shift & radix_mask(round)], 1u);
    }
    find_bin(shared, shared.counts, k, 0);
    k -= shared.found_above;
    cut.key |= shared.found_bin << shift;
  }
  if (shared.counts[cut.key & radix_mask(2)] > k) cut.last_id = find_tie(shared, n, key_of, cut.key, k);
  return cut;
}

// The cut that keeps the fewest of the ids for which key_of holds whose weights reach `target`, in units of 1 / kFixedOne.
template <class KeyOf, class WeightOf>
__device__ Cut cut_by_weight(SampleShared& shared, int64_t n, const KeyOf& key_of, const WeightOf& weight_of, uint64_t target) {
  Cut cut;
  uint64_t above = 0;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int round = 0; round < kRounds; ++round) {
    clear_bins(shared, true);
    const int shift = radix_shift(round);
    for (int64_t base = 0; base < n; base += num_threads()) {
      const int64_t id = base + threadIdx.x;
      uint32_t key = 0;
      bool active = id < n && key_of(id, &key);
      if (round > 0) active = active && (key >> radix_shift(round - 1)) == cut.key >> radix_shift(round - 1);
      const uint32_t bin = key >> shift & radix_mask(round);
      const uint64_t mass = active ? fixed_of(weight_of(id)) : 0;
      // A warp's lanes have few different bins: one addition each.
      uint32_t todo = __ballot_sync(kAllLanes, active);
      while (todo) {
        const int leader = __ffs(static_cast<int>(todo)) - 1;
        const uint32_t its_bin = __shfl_sync(kAllLanes, bin, leader);
        const bool mine = active && bin == its_bin;
        const uint32_t peers = __ballot_sync(kAllLanes, mine);
        const uint32_t low = __reduce_add_sync(kAllLanes, mine ? static_cast<uint32_t>(mass & 0xfffffu) : 0u);
        const uint32_t high = __reduce_add_sync(kAllLanes, mine ? static_cast<uint32_t>(mass >> 20) : 0u);
        if (lane == leader) {
          atomicAdd(reinterpret_cast<unsigned long long*>(&shared.masses[its_bin]),
                    (static_cast<unsigned long long>(high) << 20) + low);
          atomicAdd(&shared.counts[its_bin], static_cast<uint32_t>(__popc(peers)));
        }
        todo &= ~peers;
      }
    }
    find_bin(shared, shared.masses, target, above);
    above = shared.found_above;
    cut.key |= shared.found_bin << shift;
  }
  const uint32_t bin = cut.key & radix_mask(2);
  const uint64_t count = shared.counts[bin];
  const uint64_t each = count > 0 ? shared.masses[bin] / count : 0;  // equal logits, equal weights
  uint64_t ties = 1;
  if (target > above && each > 0) ties = (target - above + each - 1) / each;
  if (ties < 1) ties = 1;
  if (ties < count) cut.last_id = find_tie(shared, n, key_of, cut.key, ties);
  return cut;
}

}  // namespace cuda
}  // namespace parley

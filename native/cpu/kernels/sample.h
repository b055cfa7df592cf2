// Chooses one row's token (`sample`), or tells a given one's log-probability (`score`).
//
//   1. NaN logits count as -infinity, +infinity as the largest float32.
//   2. Log-probabilities (num_logprobs >= 0 or logprob_token_ids) are those of the raw softmax over all `vocab` columns, padded ones
//      too: logit - (largest + log(sum of e^(logit - largest))). The sum runs in 64 lanes over the columns and folds in a fixed tree.
//   3. Adjusted logit: raw + bias; then, for tokens of prompt and completion, divided by repetition_penalty if positive, else
//      multiplied by it; then, for tokens of the completion, - presence_penalty - frequency_penalty * count. This order is vLLM's.
//      Ids outside allowed_token_ids, forbidden ones and ids from num_sampled_ids on are never chosen.
//   4. temperature < 1e-5: the largest adjusted logit, the lowest id among equals.
//   5. Else weight = e^((adjusted - largest adjusted) / temperature), of which are kept, in this order: the top_k heaviest tokens; of
//      these the fewest heaviest tokens whose weights reach top_p of their sum; of these the ones of at least min_p times the heaviest.
//      Equal logits go by lower id. At least one token stays.
//   6. The token at which the running sum of the kept weights, in order of id, exceeds u * their sum. u is a number in [0, 1) that
//      depends on seed, choice and position alone: ops/uniform.h.
//
// If no id has an adjusted logit above -infinity, the token is -1 and its log-probability NaN.
#pragma once

#include <cstddef>

#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"
#include "ops/uniform.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

constexpr float kMinTemperature = 1e-5f;
constexpr float kLargestFloat = 3.402823466e38f;

// 16 numbers of a row of which n are left; `fill` behind them.
PARLEY_INLINE Vec load_filled(const float* p, int64_t n, float fill) {
  if (n >= kLanes) return load(p);
  float lanes[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = i < n ? p[i] : fill;
  return load(lanes);
}

PARLEY_INLINE void store_some(float* p, Vec v, int64_t n) {
  if (n >= kLanes) {
    store(p, v);
  } else {
    store_partial(p, v, n);
  }
}

// Step 1; returns the largest logit.
float clean(float* logits, int64_t n) {
  const Vec lowest = broadcast(-__builtin_inff());
  Vec top = lowest;
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec raw = load_filled(logits + i, n - i, -__builtin_inff());
    const Vec cleaned = min(select(equal(raw, raw), raw, lowest), broadcast(kLargestFloat));
    store_some(logits + i, cleaned, n - i);
    top = max(cleaned, top);
  }
  return largest(top);
}

float largest_of(const float* logits, int64_t n) {
  Vec top = broadcast(-__builtin_inff());
  for (int64_t i = 0; i < n; i += kLanes) top = max(load_filled(logits + i, n - i, -__builtin_inff()), top);
  return largest(top);
}

// log of the sum of e^(logit - top).
double log_sum(const float* logits, int64_t n, float top) {
  Vec total[4] = {zero(), zero(), zero(), zero()};
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const int64_t at = i + j * kLanes;
      if (at < n) total[j] = total[j] + exp(load_filled(logits + at, n - at, -__builtin_inff()) - broadcast(top));
    }
  }
  return __builtin_log(static_cast<double>(sum((total[0] + total[1]) + (total[2] + total[3]))));
}

// The softmax over all columns, as far as log-probabilities need it.
struct Softmax {
  float top;         // the largest logit
  double log_total;  // log of the sum of e^(logit - top)
};

PARLEY_INLINE float logprob_of(Softmax softmax, float logit) {
  return static_cast<float>(static_cast<double>(logit) - static_cast<double>(softmax.top) - softmax.log_total);
}

// The k largest logits in order, ties by lower id, as log-probabilities.
void find_top(const float* logits, int64_t n, int64_t k, Softmax softmax, int32_t* tokens, float* logprobs) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec row = load_filled(logits + i, n - i, -__builtin_inff());
    uint32_t above = count < k ? 0xffffu : bits(less(broadcast(logprobs[k - 1]), row));
    for (; above; above &= above - 1) {
      const int64_t id = i + __builtin_ctz(above);
      if (id >= n) break;
      const float value = logits[id];
      if (count == k && !(value > logprobs[k - 1])) continue;
      int64_t at = count < k ? count++ : k - 1;
      for (; at > 0 && value > logprobs[at - 1]; --at) {
        logprobs[at] = logprobs[at - 1];
        tokens[at] = tokens[at - 1];
      }
      logprobs[at] = value;
      tokens[at] = static_cast<int32_t>(id);
    }
  }
  for (int64_t i = 0; i < count; ++i) logprobs[i] = logprob_of(softmax, logprobs[i]);
  for (int64_t i = count; i < k; ++i) {  // a vocabulary smaller than k
    tokens[i] = -1;
    logprobs[i] = -__builtin_inff();
  }
}

// The log-probabilities of given ids; those outside the vocabulary have none.
void report(const float* logits, int64_t n, Softmax softmax, const int32_t* ids, int64_t count, int32_t* tokens, float* logprobs) {
  for (int64_t i = 0; i < count; ++i) {
    const bool known = ids[i] >= 0 && ids[i] < n;
    tokens[i] = ids[i];
    logprobs[i] = known ? logprob_of(softmax, logits[ids[i]]) : -__builtin_inff();
  }
}

// How many logits are at least `value`.
int32_t rank_of(const float* logits, int64_t n, float value) {
  int32_t count = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    uint32_t hits = bits(less_equal(broadcast(value), load_filled(logits + i, n - i, -__builtin_inff())));
    if (n - i < kLanes) hits &= (1u << (n - i)) - 1;  // the filling is no logit
    count += __builtin_popcount(hits);
  }
  return count;
}

PARLEY_INLINE bool has_penalties(const SampleCall& call) {
  return call.presence_penalty != 0 || call.frequency_penalty != 0 || call.repetition_penalty != 1;
}

PARLEY_INLINE bool has_adjustments(const SampleCall& call) {
  return call.num_bias > 0 || call.num_allowed > 0 || call.num_forbidden > 0 || (has_penalties(call) && call.num_counts > 0);
}

// Step 3.
void adjust(const SampleCall& call) {
  const auto known = [&](int32_t id) { return id >= 0 && id < call.vocab; };
  for (int64_t i = 0; i < call.num_bias; ++i) {
    const int32_t id = call.bias_ids[i];
    if (known(id)) call.logits[id] = call.logits[id] + call.bias_values[i];
  }
  for (int64_t i = 0; has_penalties(call) && i < call.num_counts; ++i) {
    const int32_t id = call.counts[2 * i];
    const int32_t count = call.counts[2 * i + 1];
    if (!known(id)) continue;
    float logit = call.logits[id];
    logit = logit > 0 ? logit / call.repetition_penalty : logit * call.repetition_penalty;
    if (logit > kLargestFloat) logit = kLargestFloat;  // a penalty below 1 may overflow
    if (count > 0) logit = logit - call.presence_penalty - call.frequency_penalty * static_cast<float>(count);
    call.logits[id] = logit;
  }
  if (call.num_allowed > 0) {
    float* kept = call.weights;
    for (int64_t i = 0; i < call.vocab; ++i) kept[i] = -__builtin_inff();
    for (int64_t i = 0; i < call.num_allowed; ++i) {
      const int32_t id = call.allowed[i];
      if (known(id)) kept[id] = call.logits[id];
    }
    __builtin_memcpy(call.logits, kept, static_cast<size_t>(call.vocab) * sizeof(float));
  }
  for (int64_t i = 0; i < call.num_forbidden; ++i) {
    if (known(call.forbidden[i])) call.logits[call.forbidden[i]] = -__builtin_inff();
  }
}

int32_t first_equal(const float* logits, int64_t n, float value) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const uint32_t hits = bits(equal(load_filled(logits + i, n - i, -__builtin_inff()), broadcast(value)));
    if (hits) return static_cast<int32_t>(i + __builtin_ctz(hits));
  }
  return -1;
}

// Numbers that compare like the floats.
PARLEY_INLINE uint32_t order_of(float x) {
  const float unsigned_zero = x + 0.0f;  // -0 equals 0
  uint32_t key;
  __builtin_memcpy(&key, &unsigned_zero, 4);
  return key ^ (key >> 31 ? 0xffffffffu : 0x80000000u);
}

PARLEY_INLINE float value_of(uint32_t key) {
  const uint32_t word = key ^ (key >> 31 ? 0x80000000u : 0xffffffffu);
  float x;
  __builtin_memcpy(&x, &word, 4);
  return x;
}

// Keeps the tokens above `key`, and the first `ties` of those at it.
struct Cut {
  uint32_t key;
  int64_t ties;
};

// Three rounds of a radix search over the bits of the keys, from the top: no sorting.
constexpr int kRadixShift[3] = {21, 10, 0};
constexpr uint32_t kRadixSize[3] = {2048, 2048, 1024};

Cut cut_by_count(const float* logits, const int32_t* ids, int64_t n, int64_t k) {
  uint32_t counts[2048];
  uint32_t prefix = 0;
  uint32_t mask = 0;
  for (int round = 0; round < 3; ++round) {
    const uint32_t low = kRadixSize[round] - 1;
    __builtin_memset(counts, 0, sizeof counts);
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t key = order_of(logits[ids[i]]);
      if ((key & mask) == prefix) ++counts[(key >> kRadixShift[round]) & low];
    }
    uint32_t bin = low;
    while (bin > 0 && k > counts[bin]) k -= counts[bin--];
    prefix |= bin << kRadixShift[round];
    mask |= low << kRadixShift[round];
  }
  return {prefix, k};
}

Cut cut_by_weight(const float* logits, const float* weights, const int32_t* ids, int64_t n, double target) {
  double masses[2048];
  uint32_t counts[2048];
  uint32_t prefix = 0;
  uint32_t mask = 0;
  double above = 0;
  int64_t ties = 1;
  for (int round = 0; round < 3; ++round) {
    const uint32_t low = kRadixSize[round] - 1;
    __builtin_memset(masses, 0, sizeof masses);
    __builtin_memset(counts, 0, sizeof counts);
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t key = order_of(logits[ids[i]]);
      if ((key & mask) != prefix) continue;
      const uint32_t bin = (key >> kRadixShift[round]) & low;
      masses[bin] += static_cast<double>(weights[ids[i]]);
      ++counts[bin];
    }
    // The bin in which the running sum reaches the target; by rounding it may miss it, then the last one with tokens.
    uint32_t found = 0;
    double before = above;
    for (int64_t bin = low; bin >= 0; --bin) {
      if (counts[bin] == 0) continue;
      found = static_cast<uint32_t>(bin);
      before = above;
      if (above + masses[bin] >= target) break;
      above += masses[bin];
    }
    above = before;
    prefix |= found << kRadixShift[round];
    mask |= low << kRadixShift[round];
    if (round == 2) {  // equal logits, equal weights
      const double each = masses[found] / counts[found];
      while (ties < counts[found] && above + static_cast<double>(ties) * each < target) ++ties;
    }
  }
  return {prefix, ties};
}

int64_t apply_cut(const float* logits, int32_t* ids, int64_t n, Cut cut) {
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = order_of(logits[ids[i]]);
    if (key > cut.key || (key == cut.key && cut.ties-- > 0)) ids[kept++] = ids[i];
  }
  return kept;
}

// A logit that at least k of the n have or exceed, and not many more: the k-th largest among the maxima of some groups of them.
// -infinity where looking for one is not worth it.
float bound_by_count(const float* logits, int64_t n, int64_t k) {
  constexpr int64_t kMostGroups = 2048;
  constexpr int64_t kChunks = kMostGroups / kLanes;  // each lane of each chunk is a group
  if (4 * k > kMostGroups || n < 4 * kMostGroups) return -__builtin_inff();
  float maxima[kMostGroups];
  int32_t groups[kMostGroups];
  const int64_t chunk = (n + kMostGroups - 1) / kMostGroups * kLanes;
  for (int64_t c = 0; c < kChunks; ++c) {
    Vec top = broadcast(-__builtin_inff());
    for (int64_t i = c * chunk; i < n && i < (c + 1) * chunk; i += kLanes) {
      top = max(load_filled(logits + i, n - i, -__builtin_inff()), top);
    }
    store(maxima + c * kLanes, top);
  }
  for (int32_t g = 0; g < kMostGroups; ++g) groups[g] = g;
  return value_of(cut_by_count(maxima, groups, kMostGroups, k).key);
}

// A weight such that those of at least so much reach `target` together for certain: the largest of some powers of two; else 0.
float bound_by_weight(const float* weights, int64_t n, double target) {
  // A lane's float32 sum of n / 16 weights is off by n / 16 roundings of 2^-24 at most, the lanes' sum by a few more.
  const double enough = target * (1 + 1e-6 + static_cast<double>(n) * 0x1p-27);
  for (float least = 0.25f; least > 1e-8f; least *= 0x1p-8f) {
    const float bounds[4] = {least, least * 0x1p-2f, least * 0x1p-4f, least * 0x1p-6f};
    Vec totals[4] = {zero(), zero(), zero(), zero()};
    for (int64_t i = 0; i < n; i += kLanes) {
      const Vec weight = load_filled(weights + i, n - i, 0);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) totals[j] = totals[j] + select(less_equal(broadcast(bounds[j]), weight), weight, zero());
    }
    for (int j = 0; j < 4; ++j) {
      if (static_cast<double>(sum(totals[j])) > enough) return bounds[j];
    }
  }
  return 0;
}

double sum_of(const float* weights, const int32_t* ids, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += static_cast<double>(weights[ids[i]]);
  return total;
}

// Weights of 256 ids at a time: the units of the running sum over the whole vocabulary.
constexpr int64_t kDrawBlock = 256;

double block_sum(const float* weights, int64_t n) {
  Vec total = zero();
  for (int64_t i = 0; i < n && i < kDrawBlock; i += kLanes) total = total + load_filled(weights + i, n - i, 0);
  return static_cast<double>(sum(total));
}

// Step 6 without truncation.
int32_t draw_from_all(const float* weights, int64_t n, double target) {
  double running = 0;
  int64_t start = 0;
  for (;;) {
    const double next = running + block_sum(weights + start, n - start);
    if (next > target || start + kDrawBlock >= n) break;
    running = next;
    start += kDrawBlock;
  }
  // Rounding can leave the target just behind the last weight; then the last id that has any.
  int64_t last = -1;
  for (int64_t i = start; i < n && i < start + kDrawBlock; ++i) {
    if (weights[i] > 0) {
      last = i;
      running += static_cast<double>(weights[i]);
      if (running > target) break;
    }
  }
  while (last < 0) {
    if (weights[--start] > 0) last = start;  // the heaviest weight is 1, so there is one
  }
  return static_cast<int32_t>(last);
}

int32_t draw_from_list(const float* weights, const int32_t* ids, int64_t n, double target) {
  double running = 0;
  for (int64_t i = 0; i < n; ++i) {
    running += static_cast<double>(weights[ids[i]]);
    if (running > target) return ids[i];
  }
  return ids[n - 1];
}

// Steps 5 and 6.
int32_t draw(const SampleCall& call, int64_t n, float top, float temperature) {
  float* weights = call.weights;
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec logit = load_filled(call.logits + i, n - i, -__builtin_inff());
    store_some(weights + i, exp((logit - broadcast(top)) / broadcast(temperature)), n - i);
  }
  double total = 0;
  for (int64_t i = 0; i < n; i += kDrawBlock) total += block_sum(weights + i, n - i);
  const double u = uniform(call.seed, call.choice, call.position);

  const bool by_count = call.top_k > 0 && call.top_k < n;
  const bool by_mass = call.top_p < 1;
  if (!by_count && !by_mass && !(call.min_p > 0)) return draw_from_all(weights, n, u * total);

  // Tokens lighter than this cannot be kept: without weight they are never drawn; and all tokens below (1 - top_p) total / n weigh
  // less than (1 - top_p) total together. Half of it leaves room for rounding.
  float least = 1e-45f;
  if (by_mass && !by_count) {
    const float bound = static_cast<float>((1 - call.top_p) * total / static_cast<double>(n) * 0.5);
    if (bound > least) least = bound;
    const float reached = bound_by_weight(weights, n, call.top_p * total);
    if (reached > least) least = reached;
  }
  if (!by_count && static_cast<float>(call.min_p) > least && !by_mass) least = static_cast<float>(call.min_p);
  const Vec lowest = broadcast(by_count ? bound_by_count(call.logits, n, call.top_k) : -__builtin_inff());
  int32_t* ids = call.candidates;
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    uint32_t heavy = bits(less_equal(broadcast(least), load_filled(weights + i, n - i, 0)));
    if (by_count) heavy &= bits(less_equal(lowest, load_filled(call.logits + i, n - i, -__builtin_inff())));
    for (; heavy; heavy &= heavy - 1) ids[count++] = static_cast<int32_t>(i + __builtin_ctz(heavy));
  }

  if (by_count && call.top_k < count) count = apply_cut(call.logits, ids, count, cut_by_count(call.logits, ids, count, call.top_k));
  if (by_mass) {
    const double target = call.top_p * (by_count ? sum_of(weights, ids, count) : total);
    count = apply_cut(call.logits, ids, count, cut_by_weight(call.logits, weights, ids, count, target));
  }
  if (call.min_p > 0) {
    const float lightest = static_cast<float>(call.min_p);  // the heaviest weight is 1
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (weights[ids[i]] >= lightest) ids[kept++] = ids[i];
    }
    count = kept;
  }
  return draw_from_list(weights, ids, count, u * sum_of(weights, ids, count));
}

void score(ScoreCall& call) {
  Softmax softmax{clean(call.logits, call.vocab), 0};
  softmax.log_total = log_sum(call.logits, call.vocab, softmax.top);
  if (call.num_top > 0) find_top(call.logits, call.vocab, call.num_top, softmax, call.top_tokens, call.top_logprobs);
  call.logprob = logprob_of(softmax, call.logits[call.token]);
  call.rank = rank_of(call.logits, call.vocab, call.logits[call.token]);
}

void sample(SampleCall& call) {
  const int64_t vocab = call.vocab;
  Softmax softmax{clean(call.logits, vocab), 0};
  const bool with_logprobs = call.num_logprobs >= 0 || call.num_reported > 0;
  if (with_logprobs) {
    softmax.log_total = log_sum(call.logits, vocab, softmax.top);
    if (call.num_reported > 0) {
      report(call.logits, vocab, softmax, call.reported, call.num_reported, call.top_tokens, call.top_logprobs);
    } else if (call.num_logprobs > 0) {
      find_top(call.logits, vocab, call.num_logprobs, softmax, call.top_tokens, call.top_logprobs);
    }
  }

  const float* raw = call.logits;
  if (has_adjustments(call)) {
    if (with_logprobs) {
      __builtin_memcpy(call.raw, call.logits, static_cast<size_t>(vocab) * sizeof(float));
      raw = call.raw;
    }
    adjust(call);
  }
  const int64_t n = call.num_sampled_ids < vocab ? call.num_sampled_ids : vocab;
  const float top = largest_of(call.logits, n);
  const float temperature = static_cast<float>(call.temperature);
  call.logprob = __builtin_nanf("");
  call.rank = 0;
  if (!(top > -__builtin_inff())) {
    call.token = -1;
    return;
  }
  call.token = temperature < kMinTemperature ? first_equal(call.logits, n, top) : draw(call, n, top, temperature);
  if (with_logprobs) {
    call.logprob = logprob_of(softmax, raw[call.token]);
    call.rank = rank_of(raw, vocab, raw[call.token]);
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

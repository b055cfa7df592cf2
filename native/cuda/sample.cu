#include "cuda/sample.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/arithmetic.h"
#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "cuda/sample_row.h"

namespace parley {
namespace cuda {
namespace {

// The softmax over all columns, as far as log-probabilities need it.
struct Softmax {
  float top;
  double log_total;

  __device__ float logprob_of(float logit) const {
    return static_cast<float>(static_cast<double>(logit) - static_cast<double>(top) - log_total);
  }
};

// NaN becomes -infinity, +infinity the largest float32. Returns the best of all columns.
__device__ uint64_t clean(float* logits, int64_t n, SampleShared& shared) {
  constexpr int kAhead = 8;  // loads under way
  uint64_t best = 0;
  const auto take = [&](float* at, float raw) {
    const float cleaned = raw == raw ? fminf(raw, kLargestFloat) : -infinity();
    if (!(cleaned == raw)) *at = cleaned;
    const uint64_t mine = ranked(cleaned, at - logits);
    best = mine > best ? mine : best;
  };
  const int64_t packs = reinterpret_cast<uintptr_t>(logits) % sizeof(Pack<float, 4>) == 0 ? n / 4 : 0;
  for (int64_t first = threadIdx.x; first < packs; first += kAhead * num_threads()) {
    Pack<float, 4> ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t pack = first + i * num_threads();
      if (pack < packs) ahead[i] = load_pack<4>(logits + 4 * pack);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t pack = first + i * num_threads();
      if (pack >= packs) break;
#pragma unroll
      for (int j = 0; j < 4; ++j) take(logits + 4 * pack + j, ahead[i].numbers[j]);
    }
  }
  for (int64_t id = 4 * packs + threadIdx.x; id < n; id += num_threads()) take(logits + id, logits[id]);
  return reduce_block(best, shared.scratch, uint64_t{0}, Largest());
}

// Log of the sum of e^(logit - top), the same in every thread.
__device__ double log_sum(const float* logits, int64_t n, float top, SampleShared& shared) {
  float total = 0;
  for (int64_t id = threadIdx.x; id < n; id += num_threads()) total += exp_as_cpu(logits[id] - top);
  const double sum = reduce_block(static_cast<double>(total), reinterpret_cast<double*>(shared.scratch), 0.0, Plus());
  if (threadIdx.x == 0) shared.total = log(sum);
  __syncthreads();
  const double result = shared.total;
  __syncthreads();
  return result;
}

__device__ int32_t rank_of(const float* logits, int64_t n, float value, SampleShared& shared) {
  int32_t count = 0;
  for (int64_t id = threadIdx.x; id < n; id += num_threads()) count += logits[id] >= value;
  return reduce_block(count, reinterpret_cast<int32_t*>(shared.scratch), 0, Plus());
}

// The k largest logits in order, ties by lower id.
__device__ void find_top(const float* logits, int64_t n, int k, Softmax softmax, SampleShared& shared, SampleResult& result) {
  const auto key_of = [=](int64_t id, uint32_t* key) {
    *key = order_of(logits[id]);
    return true;
  };
  const Cut cut = cut_by_count(shared, n, key_of, static_cast<uint64_t>(k));
  if (threadIdx.x == 0) shared.num_listed = 0;
  __syncthreads();
  for (int64_t id = threadIdx.x; id < n; id += num_threads()) {
    const uint32_t key = order_of(logits[id]);
    if (!cut.keeps(key, id)) continue;
    const uint32_t at = atomicAdd(&shared.num_listed, 1u);
    shared.listed_keys[at] = key;
    shared.listed_ids[at] = static_cast<int32_t>(id);
  }
  __syncthreads();
  const int listed = static_cast<int>(shared.num_listed);
  const int i = static_cast<int>(threadIdx.x);
  if (i < listed) {
    int place = 0;
    for (int j = 0; j < listed; ++j) {
      const bool before = shared.listed_keys[j] > shared.listed_keys[i] ||
                          (shared.listed_keys[j] == shared.listed_keys[i] && shared.listed_ids[j] < shared.listed_ids[i]);
      place += before;
    }
    result.top_tokens[place] = shared.listed_ids[i];
    result.top_logprobs[place] = softmax.logprob_of(logits[shared.listed_ids[i]]);
  } else if (i < k) {  // a vocabulary smaller than k
    result.top_tokens[i] = -1;
    result.top_logprobs[i] = -infinity();
  }
  __syncthreads();
}

// Which of the vocabulary's ids may be adjusted or chosen at all.
__device__ bool known(int32_t id, int64_t vocab) { return id >= 0 && id < vocab; }

// Step 3 of cpu/kernels/sample.h. The logits that it replaces stand in memory.raw, beside the lists that name them.
__device__ void adjust(const SamplePlan& plan, const SampleMemory& memory, float* logits, int64_t vocab) {
  const int32_t* bias_ids = memory.numbers + plan.bias;
  for (int i = static_cast<int>(threadIdx.x); i < plan.num_bias; i += num_threads()) {
    const int32_t id = bias_ids[i];
    if (!known(id, vocab) || (i > 0 && bias_ids[i - 1] == id)) continue;  // the first of equal ids adds them all
    float logit = logits[id];
    memory.raw[plan.bias + i] = logit;
    for (int j = i; j < plan.num_bias && bias_ids[j] == id; ++j) logit = logit + __int_as_float(bias_ids[plan.num_bias + j]);
    logits[id] = logit;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < plan.num_counts; i += num_threads()) {
    const int32_t id = memory.numbers[plan.counts + 2 * i];
    const int32_t count = memory.numbers[plan.counts + 2 * i + 1];
    if (!known(id, vocab)) continue;
    float logit = logits[id];
    memory.raw[plan.counts + 2 * i] = logit;
    logit = logit > 0 ? logit / plan.repetition_penalty : logit * plan.repetition_penalty;
    if (logit > kLargestFloat) logit = kLargestFloat;
    if (count > 0) logit = logit - plan.presence_penalty - plan.frequency_penalty * static_cast<float>(count);
    logits[id] = logit;
  }
  __syncthreads();
  const int32_t* forbidden = memory.numbers + plan.forbidden;
  for (int i = static_cast<int>(threadIdx.x); i < plan.num_forbidden; i += num_threads()) {
    const int32_t id = forbidden[i];
    if (!known(id, vocab) || (i > 0 && forbidden[i - 1] == id)) continue;
    memory.raw[plan.forbidden + i] = logits[id];
    logits[id] = -infinity();
  }
  __syncthreads();
}

// Takes the adjustments back, in reverse order.
__device__ void restore(const SamplePlan& plan, const SampleMemory& memory, float* logits, int64_t vocab) {
  __syncthreads();
  const int32_t* forbidden = memory.numbers + plan.forbidden;
  for (int i = static_cast<int>(threadIdx.x); i < plan.num_forbidden; i += num_threads()) {
    if (known(forbidden[i], vocab) && !(i > 0 && forbidden[i - 1] == forbidden[i])) logits[forbidden[i]] = memory.raw[plan.forbidden + i];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < plan.num_counts; i += num_threads()) {
    const int32_t id = memory.numbers[plan.counts + 2 * i];
    if (known(id, vocab)) logits[id] = memory.raw[plan.counts + 2 * i];
  }
  __syncthreads();
  const int32_t* bias_ids = memory.numbers + plan.bias;
  for (int i = static_cast<int>(threadIdx.x); i < plan.num_bias; i += num_threads()) {
    if (known(bias_ids[i], vocab) && !(i > 0 && bias_ids[i - 1] == bias_ids[i])) logits[bias_ids[i]] = memory.raw[plan.bias + i];
  }
  __syncthreads();
}

// Which ids a row may choose, and what each weighs.
struct Choice {
  const float* logits;
  const uint32_t* allowed;  // bits, or null: all
  int64_t n;
  float top;
  float temperature;

  __device__ float logit_of(int64_t id) const {
    return allowed && !(allowed[id / 32] >> (id % 32) & 1u) ? -infinity() : logits[id];
  }
  __device__ float weight_of(int64_t id) const { return exp_as_cpu((logit_of(id) - top) / temperature); }
};

// The block of ids in which the running sum of `sums` exceeds `target` (the last block if it never does), and the sum before it.
template <class Number>
__device__ void find_block(const Number* sums, int64_t num_blocks, double target, SampleShared& shared) {
  __syncthreads();
  if (threadIdx.x == 0) {
    Number running = 0;
    int64_t block = 0;
    for (; block + 1 < num_blocks; ++block) {
      const Number next = running + sums[block];
      if (static_cast<double>(next) > target) break;
      running = next;
    }
    shared.block = block;
    shared.before = static_cast<double>(running);
  }
  __syncthreads();
}

// Sum over all ids of weights, the CPU's bits: 16 lanes over 256 ids, folded in a tree, and these sums one after the other.
__device__ double sum_blocks(const Choice& choice, double* sums, int64_t num_blocks, SampleShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 16;
  for (int64_t first = 0; first < num_blocks; first += num_threads() / 16) {
    const int64_t block = first + threadIdx.x / 16;
    float total = 0;
    for (int i = 0; i < kDrawBlock / 16; ++i) {
      const int64_t id = block * kDrawBlock + i * 16 + lane;
      if (id < choice.n) total = total + choice.weight_of(id);
    }
#pragma unroll
    for (int step = 8; step > 0; step /= 2) total = total + __shfl_xor_sync(kAllLanes, total, step);
    if (lane == 0 && block < num_blocks) sums[block] = static_cast<double>(total);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0;
    for (int64_t block = 0; block < num_blocks; ++block) total += sums[block];
    shared.total = total;
  }
  __syncthreads();
  return shared.total;
}

__device__ int32_t draw_from_all(const Choice& choice, const double* sums, int64_t num_blocks, double target, SampleShared& shared) {
  find_block(sums, num_blocks, target, shared);
  const int64_t start = shared.block * kDrawBlock;
  for (int i = static_cast<int>(threadIdx.x); i < kDrawBlock && start + i < choice.n; i += num_threads()) {
    shared.weights[i] = choice.weight_of(start + i);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double running = shared.before;
    int64_t last = -1;
    for (int64_t i = 0; i < kDrawBlock && start + i < choice.n; ++i) {
      if (!(shared.weights[i] > 0)) continue;
      last = start + i;
      running += static_cast<double>(shared.weights[i]);
      if (running > target) break;
    }
    // Rounding can leave the target just behind the last weight; the heaviest weight is 1, so there is one.
    for (int64_t id = start; last < 0; ) {
      if (choice.weight_of(--id) > 0) last = id;
    }
    shared.token = static_cast<int32_t>(last);
  }
  __syncthreads();
  return shared.token;
}

// The token at which the running sum of what is kept exceeds u times their sum; the last one kept if it never does.
template <class Kept>
__device__ int32_t draw_from_kept(const Choice& choice, const Kept& kept, uint64_t* sums, int64_t num_blocks, double u,
                                  SampleShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint64_t total = 0;
  uint64_t last = 0;  // 1 + the last id kept
  for (int64_t first = 0; first < num_blocks; first += num_threads() / 32) {
    const int64_t block = first + threadIdx.x / 32;
    uint64_t sum = 0;
    for (int64_t id = block * kDrawBlock + lane; id < (block + 1) * kDrawBlock && id < choice.n; id += 32) {
      if (!kept(id)) continue;
      sum += fixed_of(choice.weight_of(id));
      last = static_cast<uint64_t>(id) + 1;
    }
    sum = reduce_warp(sum, Plus());
    if (lane == 0 && block < num_blocks) sums[block] = sum;
    if (lane == 0) total += sum;
  }
  total = reduce_block(total, shared.scratch, uint64_t{0}, Plus());
  last = reduce_block(last, shared.scratch, uint64_t{0}, Largest());
  const double target = u * static_cast<double>(total);
  find_block(sums, num_blocks, target, shared);
  if (threadIdx.x == 0) {
    uint64_t running = static_cast<uint64_t>(shared.before);
    shared.token = static_cast<int32_t>(last) - 1;
    const int64_t start = shared.block * kDrawBlock;
    for (int64_t id = start; id < start + kDrawBlock && id < choice.n; ++id) {
      if (!kept(id)) continue;
      running += fixed_of(choice.weight_of(id));
      if (static_cast<double>(running) > target) {
        shared.token = static_cast<int32_t>(id);
        break;
      }
    }
  }
  __syncthreads();
  return shared.token;
}

// Steps 5 and 6.
__device__ int32_t draw(const SamplePlan& plan, const Choice& choice, uint64_t* sums, SampleShared& shared) {
  const int64_t n = choice.n;
  const int64_t num_blocks = (n + kDrawBlock - 1) / kDrawBlock;
  const bool by_count = plan.top_k > 0 && plan.top_k < n;
  const bool by_mass = plan.top_p < 1;
  const bool by_ratio = plan.min_p > 0;
  double total = 0;
  if (!by_count && (by_mass || !by_ratio)) total = sum_blocks(choice, reinterpret_cast<double*>(sums), num_blocks, shared);
  if (!by_count && !by_mass && !by_ratio) {
    return draw_from_all(choice, reinterpret_cast<const double*>(sums), num_blocks, plan.u * total, shared);
  }
  // Tokens lighter than this are not kept whatever the others are (see cpu/kernels/sample.h).
  float least = 1e-45f;
  if (by_mass && !by_count) {
    const float bound = static_cast<float>((1 - plan.top_p) * total / static_cast<double>(n) * 0.5);
    if (bound > least) least = bound;
  }
  const auto candidate = [&](int64_t id, uint32_t* key) {
    if (!(choice.weight_of(id) >= least)) return false;
    *key = order_of(choice.logit_of(id));
    return true;
  };
  Cut by_k;
  if (by_count) by_k = cut_by_count(shared, n, candidate, static_cast<uint64_t>(plan.top_k));
  const auto in_k = [&](int64_t id, uint32_t* key) { return candidate(id, key) && by_k.keeps(*key, id); };
  const auto weight_of = [&](int64_t id) { return choice.weight_of(id); };
  Cut by_p;
  if (by_mass) {
    double of = total * kFixedOne;
    if (by_count) {
      uint64_t sum = 0;
      for (int64_t id = threadIdx.x; id < n; id += num_threads()) {
        uint32_t key;
        if (in_k(id, &key)) sum += fixed_of(choice.weight_of(id));
      }
      of = static_cast<double>(reduce_block(sum, shared.scratch, uint64_t{0}, Plus()));
    }
    by_p = cut_by_weight(shared, n, in_k, weight_of, static_cast<uint64_t>(ceil(plan.top_p * of)));
  }
  const auto kept = [&](int64_t id) {
    uint32_t key;
    return in_k(id, &key) && by_p.keeps(key, id) && (!by_ratio || choice.weight_of(id) >= plan.min_p);
  };
  return draw_from_kept(choice, kept, sums, num_blocks, plan.u, shared);
}

__global__ void __launch_bounds__(kSampleThreads, 1) sample_rows(SampleMemory memory, Matrix<float> rows, int64_t num_sampled_ids) {
  wait_for_previous_kernel();
  __shared__ SampleShared shared;
  const int64_t row = static_cast<int64_t>(blockIdx.x);
  const SamplePlan& plan = memory.plans[row];
  SampleResult& result = memory.results[row];
  float* logits = rows.row(row);
  const int64_t vocab = rows.cols;
  const int64_t n = num_sampled_ids < vocab ? num_sampled_ids : vocab;
  const bool adjusted = plan.num_bias > 0 || plan.num_counts > 0 || plan.num_forbidden > 0;

  const uint64_t best_of_all = clean(logits, vocab, shared);
  Softmax softmax{logits[id_of(best_of_all)], 0};
  if (plan.with_logprobs) {
    softmax.log_total = log_sum(logits, vocab, softmax.top, shared);
    for (int i = static_cast<int>(threadIdx.x); i < plan.num_reported; i += num_threads()) {
      const int32_t id = memory.numbers[plan.reported + i];
      result.top_tokens[i] = id;
      result.top_logprobs[i] = known(id, vocab) ? softmax.logprob_of(logits[id]) : -infinity();
    }
    if (plan.num_reported == 0 && plan.num_top > 0) find_top(logits, vocab, plan.num_top, softmax, shared, result);
  }

  if (adjusted) adjust(plan, memory, logits, vocab);
  uint32_t* allowed = nullptr;
  if (plan.num_allowed > 0) {
    const int64_t words = (vocab + 31) / 32;
    allowed = memory.allowed + row * words;
    for (int64_t i = threadIdx.x; i < words; i += num_threads()) allowed[i] = 0;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < plan.num_allowed; i += num_threads()) {
      const int32_t id = memory.numbers[plan.allowed + i];
      if (known(id, vocab)) atomicOr(&allowed[id / 32], 1u << (id % 32));
    }
    __syncthreads();
  }

  Choice choice{logits, allowed, n, 0, plan.temperature};
  uint64_t best = best_of_all;
  if (adjusted || allowed || n < vocab) {
    best = 0;
    for (int64_t id = threadIdx.x; id < n; id += num_threads()) {
      const uint64_t mine = ranked(choice.logit_of(id), id);
      best = mine > best ? mine : best;
    }
    best = reduce_block(best, shared.scratch, uint64_t{0}, Largest());
  }
  int32_t token = id_of(best);
  choice.top = choice.logit_of(token);
  if (!(choice.top > -infinity())) {
    token = -1;
  } else if (!(plan.temperature < kMinTemperature)) {
    token = draw(plan, choice, memory.sums + row * ((vocab + kDrawBlock - 1) / kDrawBlock), shared);
  }

  float logprob = __int_as_float(0x7fc00000);
  int32_t rank = 0;
  if (plan.with_logprobs && token >= 0) {
    if (adjusted) restore(plan, memory, logits, vocab);
    logprob = softmax.logprob_of(logits[token]);
    rank = rank_of(logits, vocab, logits[token], shared);
  }
  if (threadIdx.x == 0) {
    memory.chosen[row] = static_cast<float>(token);
    result.token = token;
    result.logprob = logprob;
    result.rank = rank;
  }
}

__global__ void __launch_bounds__(kSampleThreads) score_rows(SampleMemory memory, Matrix<float> rows) {
  wait_for_previous_kernel();
  __shared__ SampleShared shared;
  const int64_t row = static_cast<int64_t>(blockIdx.x);
  const SamplePlan& plan = memory.plans[row];
  SampleResult& result = memory.results[row];
  float* logits = rows.row(row);
  Softmax softmax{logits[id_of(clean(logits, rows.cols, shared))], 0};
  softmax.log_total = log_sum(logits, rows.cols, softmax.top, shared);
  if (plan.num_top > 0) find_top(logits, rows.cols, plan.num_top, softmax, shared, result);
  const int32_t rank = rank_of(logits, rows.cols, logits[plan.token], shared);
  if (threadIdx.x == 0) {
    result.token = plan.token;
    result.logprob = softmax.logprob_of(logits[plan.token]);
    result.rank = rank;
  }
}

// Where the parts of a call lie in one piece of device memory. Numbers come last of what is uploaded.
struct Layout {
  int64_t plans, numbers, uploaded, raw, sums, allowed, results, bytes;

  Layout(int64_t num_rows, int64_t vocab, int64_t num_numbers) {
    int64_t at = 0;
    const auto place = [&](int64_t count, int64_t size) {
      const int64_t start = at;
      at = checked_add(at, ceil_div(checked_mul(count, size), 256) * 256);
      return start;
    };
    plans = place(num_rows, sizeof(SamplePlan));
    numbers = place(num_numbers, 4);
    uploaded = at;
    raw = place(num_numbers, 4);
    sums = place(checked_mul(num_rows, ceil_div(vocab, kDrawBlock)), 8);
    allowed = place(checked_mul(num_rows, ceil_div(vocab, 32)), 4);
    results = place(num_rows, sizeof(SampleResult));
    bytes = at;
  }

  SampleMemory in(char* memory) const {
    return {reinterpret_cast<const SamplePlan*>(memory + plans), reinterpret_cast<const int32_t*>(memory + numbers),
            reinterpret_cast<float*>(memory + raw),              reinterpret_cast<uint64_t*>(memory + sums),
            reinterpret_cast<uint32_t*>(memory + allowed),       reinterpret_cast<SampleResult*>(memory + results), nullptr};
  }
};

int64_t num_top(const ScoreRow& row) { return row.num_top; }
int64_t num_top(const SampleRow& row) { return parley::num_top(*row.params); }

// Results to where the caller wants them.
template <class Row>
void tell(const SampleResult* results, Span<const Row> rows, const Choices& choices) {
  for (int64_t r = 0; r < rows.size; ++r) {
    const SampleResult& result = results[r];
    if (choices.tokens.size > 0) choices.tokens[r] = result.token;
    choices.logprobs[r] = result.logprob;
    choices.ranks[r] = result.rank;
    const int64_t wanted = std::min(num_top(rows[r]), choices.top_tokens.cols);
    if (wanted == 0) continue;
    std::copy_n(result.top_tokens, wanted, choices.top_tokens.row(r));
    std::copy_n(result.top_logprobs, wanted, choices.top_logprobs.row(r));
  }
}

unsigned threads_for(int64_t vocab) { return static_cast<unsigned>(std::min<int64_t>(ceil_div(vocab, 32) * 32, kSampleThreads)); }

// Ids of a call's lists that room is reserved for. Penalties count all tokens of a sequence, two numbers each: those of two of the longest
// sequences have room, and of all of them where that is at most a mebibyte. More are rare.
int64_t reserved_numbers(const ScratchLimits& limits) {
  const int64_t of_a_row = checked_mul(2, limits.context);
  constexpr int64_t kMuch = int64_t{1} << 18;
  return std::max(checked_mul(2, of_a_row), std::min(checked_mul(of_a_row, limits.sequences), kMuch));
}

}  // namespace

int64_t Sampler::scratch_bytes(const ScratchLimits& limits) const {
  return Layout(limits.rows, limits.vocab, reserved_numbers(limits)).bytes;
}

int64_t Sampler::block_bytes(const ScratchLimits& limits) const {
  const int64_t rows = checked_add(limits.rows, limits.sequences);
  return checked_add(StepBlock::bytes<SamplePlan>(rows), StepBlock::bytes<int32_t>(reserved_numbers(limits)));
}

void Sampler::reserve(const ScratchLimits& limits) {
  most_planned_ = reserved_numbers(limits);
  device_.reserve<char>(scratch_bytes(limits));
  upload_.reserve<char>(Layout(limits.rows, limits.vocab, most_planned_).uploaded);
  for (PinnedScratch* results : {&even_.results, &odd_.results, &download_}) results->reserve<SampleResult>(limits.rows);
}

void Sampler::begin_block() {
  planned_ = {};
  planned_samples_ = {};
  planned_scores_ = {};
}

void Sampler::plan(Span<const SampleRow> samples, Span<const ScoreRow> scores, StepBlock& block) {
  rows_.clear();
  for (const SampleRow& row : samples) rows_.add(row);
  for (const ScoreRow& row : scores) rows_.add(row);
  const auto num_rows = static_cast<int64_t>(rows_.plans().size());
  const auto num_numbers = static_cast<int64_t>(rows_.numbers().size());
  if (num_rows == 0 || num_numbers > most_planned_) return;
  const auto plans = block.take<SamplePlan>(num_rows);
  const auto numbers = block.take<int32_t>(num_numbers);
  std::copy(rows_.plans().begin(), rows_.plans().end(), plans.host);
  std::copy(rows_.numbers().begin(), rows_.numbers().end(), numbers.host);
  planned_ = {plans.device, numbers.device, num_numbers};
  planned_samples_ = samples;
  planned_scores_ = scores;
}

bool Sampler::is_planned(Span<const SampleRow> rows) const {
  return rows.data >= planned_samples_.data && rows.data + rows.size <= planned_samples_.data + planned_samples_.size;
}

bool Sampler::is_planned(Span<const ScoreRow> rows) const {
  return rows.data >= planned_scores_.data && rows.data + rows.size <= planned_scores_.data + planned_scores_.size;
}

void Sampler::sample(Matrix<float> logits, float* chosen, Span<const SampleRow> rows, int64_t num_sampled_ids, const Choices& choices) {
  check(num_begun_ - num_waited_ < 2, "sample: two calls are under way");
  Call& call = call_of(num_begun_);
  call.rows = {};
  if (rows.size > 0 && is_planned(rows)) {
    SampleResult* results = call.results.reserve<SampleResult>(rows.size);
    const SampleMemory memory = planned(rows.data - planned_samples_.data, rows.size, logits.cols);
    start_sampling(memory, logits, chosen, num_sampled_ids);
    bring(memory, rows.size, results, call.end);
    call.rows = rows;
    call.choices = choices;
  } else if (rows.size > 0) {
    sample_at_once(logits, chosen, rows, num_sampled_ids, choices);
  }
  ++num_begun_;
}

void Sampler::wait() {
  check(num_waited_ < num_begun_, "wait_for_choices: no call of sample() is under way");
  Call& call = call_of(num_waited_);
  if (call.rows.size > 0) {
    wait_for(call.end);
    tell(call.results.reserve<SampleResult>(0), call.rows, call.choices);
  }
  ++num_waited_;
}

void Sampler::forget() {
  num_waited_ = num_begun_;
  idle_.forget();
}

void Sampler::sample_at_once(Matrix<float> logits, float* chosen, Span<const SampleRow> rows, int64_t num_sampled_ids,
                             const Choices& choices) {
  try {
    const SampleMemory memory = send(rows, logits.cols);
    SampleResult* results = download_.reserve<SampleResult>(rows.size);
    start_sampling(memory, logits, chosen, num_sampled_ids);
    bring(memory, rows.size, results, end_);
    wait_for(end_);
    return tell(results, rows, choices);
  } catch (const OutOfMemory&) {
    if (rows.size == 1) {
      choices.tokens[0] = -1;
      choices.logprobs[0] = std::numeric_limits<float>::quiet_NaN();
      choices.ranks[0] = 0;
      return;
    }
  }
  const int64_t half = rows.size / 2;
  for (const auto& [first, count] : {std::pair{int64_t{0}, half}, std::pair{half, rows.size - half}}) {
    const auto some = [first = first, count = count](auto matrix) {
      return decltype(matrix)(matrix.row(first), count, matrix.cols, matrix.stride);
    };
    const Choices part{{choices.tokens.data + first, count},
                       {choices.logprobs.data + first, count},
                       {choices.ranks.data + first, count},
                       some(choices.top_tokens),
                       some(choices.top_logprobs)};
    sample_at_once(some(logits), chosen + first, {rows.data + first, count}, num_sampled_ids, part);
  }
}

void Sampler::score(Matrix<float> logits, Span<const ScoreRow> rows, const Choices& choices) {
  if (rows.size == 0) return;
  const SampleMemory memory = is_planned(rows)
                                  ? planned(planned_samples_.size + (rows.data - planned_scores_.data), rows.size, logits.cols)
                                  : send(rows, logits.cols);
  SampleResult* results = download_.reserve<SampleResult>(rows.size);
  launch(score_rows, static_cast<unsigned>(rows.size), threads_for(logits.cols), 0, stream_, memory, logits);
  bring(memory, rows.size, results, end_);
  wait_for(end_);
  tell(results, rows, choices);
}

// Memory for rows whose plans are in the step's block, from first_plan on.
SampleMemory Sampler::planned(int64_t first_plan, int64_t num_rows, int64_t vocab) {
  const Layout layout(num_rows, vocab, planned_.num_numbers);
  SampleMemory memory = layout.in(device_.reserve<char>(layout.bytes));
  memory.plans = planned_.plans + first_plan;
  memory.numbers = planned_.numbers;
  return memory;
}

// The same for rows that are not: their plans are sent. The host's copy of them stays as it is until somebody has waited.
template <class Row>
SampleMemory Sampler::send(Span<const Row> rows, int64_t vocab) {
  rows_.clear();
  for (const Row& row : rows) rows_.add(row);
  const Layout layout(rows.size, vocab, static_cast<int64_t>(rows_.numbers().size()));
  char* device = device_.reserve<char>(layout.bytes);
  char* host = upload_.reserve<char>(layout.uploaded);
  std::copy(rows_.plans().begin(), rows_.plans().end(), reinterpret_cast<SamplePlan*>(host + layout.plans));
  std::copy(rows_.numbers().begin(), rows_.numbers().end(), reinterpret_cast<int32_t*>(host + layout.numbers));
  check(cudaMemcpyAsync(device, host, static_cast<size_t>(layout.uploaded), cudaMemcpyHostToDevice, stream_), "rows to sample");
  return layout.in(device);
}

void Sampler::start_sampling(SampleMemory memory, Matrix<float> logits, float* chosen, int64_t num_sampled_ids) {
  memory.chosen = chosen;
  launch(sample_rows, static_cast<unsigned>(logits.rows), threads_for(logits.cols), 0, stream_, memory, logits, num_sampled_ids);
}

// The results on their way to the host, and the end of that.
void Sampler::bring(const SampleMemory& memory, int64_t num_rows, SampleResult* results, StreamEnd& end) {
  check(cudaMemcpyAsync(results, memory.results, static_cast<size_t>(num_rows) * sizeof(SampleResult), cudaMemcpyDeviceToHost, stream_),
        "sampled tokens");
  idle_.end();
  end.set("step");
}

void Sampler::wait_for(StreamEnd& end) {
  end.wait("step");
  idle_.ended();
}

}  // namespace cuda
}  // namespace parley

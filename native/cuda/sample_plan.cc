#include "cuda/sample_plan.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "ops/uniform.h"

namespace parley {
namespace cuda {

void SamplePlans::clear() {
  plans_.clear();
  numbers_.clear();
}

void SamplePlans::add(const SampleRow& row) {
  const SamplingParams& params = *row.params;
  SamplePlan plan{};
  plan.top_p = params.top_p;
  plan.u = uniform(params.seed, params.choice, row.position);
  plan.top_k = params.top_k;
  plan.temperature = static_cast<float>(params.temperature);
  plan.min_p = static_cast<float>(params.min_p);
  plan.presence_penalty = static_cast<float>(params.presence_penalty);
  plan.frequency_penalty = static_cast<float>(params.frequency_penalty);
  plan.repetition_penalty = static_cast<float>(params.repetition_penalty);
  plan.num_reported = static_cast<int32_t>(std::min(static_cast<int64_t>(params.logprob_token_ids.size()), kMaxLogprobs));
  plan.num_top = static_cast<int32_t>(std::max<int64_t>(std::min(params.num_logprobs, kMaxLogprobs), 0));
  plan.with_logprobs = params.num_logprobs >= 0 || plan.num_reported > 0;
  plan.num_bias = static_cast<int32_t>(std::min(params.bias_ids.size(), params.bias_values.size()));
  plan.bias = add_sorted(params.bias_ids, params.bias_values, plan.num_bias);
  const bool with_penalties = plan.presence_penalty != 0 || plan.frequency_penalty != 0 || plan.repetition_penalty != 1;
  plan.num_counts = with_penalties ? static_cast<int32_t>(row.counts.size) : 0;
  plan.counts = add_list(reinterpret_cast<const int32_t*>(row.counts.data), 2 * int64_t{plan.num_counts});
  plan.num_allowed = static_cast<int32_t>(params.allowed_token_ids.size());
  plan.allowed = add_list(params.allowed_token_ids.data(), plan.num_allowed);
  plan.num_forbidden = static_cast<int32_t>(row.forbidden.size);
  plan.forbidden = add_sorted(row.forbidden.data, plan.num_forbidden);
  plan.reported = add_list(params.logprob_token_ids.data(), plan.num_reported);
  plans_.push_back(plan);
}

void SamplePlans::add(const ScoreRow& row) {
  SamplePlan plan{};
  plan.token = row.token;
  plan.num_top = static_cast<int32_t>(std::min<int64_t>(row.num_top, kMaxLogprobs));
  plans_.push_back(plan);
}

int32_t SamplePlans::add_list(const int32_t* list, int64_t count) {
  const size_t start = numbers_.size();
  numbers_.insert(numbers_.end(), list, list + count);
  check(numbers_.size() <= 0x7fffffff, "lists of ids for sampling: too long");
  return static_cast<int32_t>(start);
}

// In order of id; equal ones keep theirs.
int32_t SamplePlans::add_sorted(const int32_t* list, int64_t count) {
  const int32_t start = add_list(list, count);
  std::stable_sort(numbers_.begin() + start, numbers_.end());
  return start;
}

// Ids in order, then the values that go with them.
int32_t SamplePlans::add_sorted(const std::vector<int32_t>& ids, const std::vector<float>& values, int64_t count) {
  order_.resize(static_cast<size_t>(count));
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int32_t a, int32_t b) { return ids[static_cast<size_t>(a)] < ids[static_cast<size_t>(b)]; });
  const int32_t start = add_list(nullptr, 0);
  for (const int32_t i : order_) numbers_.push_back(ids[static_cast<size_t>(i)]);
  for (const int32_t i : order_) {
    int32_t bits;
    std::memcpy(&bits, &values[static_cast<size_t>(i)], 4);
    numbers_.push_back(bits);
  }
  return start;
}

}  // namespace cuda
}  // namespace parley

// Rows of `sample` and `score` as their kernels read them: plain C++, made on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/types.h"

namespace parley {
namespace cuda {

// One row. Lists begin at these indices of the numbers that are sent beside the plans.
struct SamplePlan {
  double top_p;
  double u;  // the random number
  int64_t top_k;
  float temperature;
  float min_p;
  float presence_penalty;
  float frequency_penalty;
  float repetition_penalty;
  int32_t token;  // score: the one that is asked for
  int32_t num_top;
  int32_t with_logprobs;
  int32_t bias, num_bias;            // ids in order, then as many values
  int32_t counts, num_counts;        // pairs of token and count
  int32_t allowed, num_allowed;
  int32_t forbidden, num_forbidden;  // in order
  int32_t reported, num_reported;
};

class SamplePlans {
 public:
  void clear();
  void add(const SampleRow& row);
  void add(const ScoreRow& row);

  const std::vector<SamplePlan>& plans() const { return plans_; }
  const std::vector<int32_t>& numbers() const { return numbers_; }

 private:
  int32_t add_list(const int32_t* list, int64_t count);
  int32_t add_sorted(const int32_t* list, int64_t count);
  int32_t add_sorted(const std::vector<int32_t>& ids, const std::vector<float>& values, int64_t count);

  std::vector<SamplePlan> plans_;
  std::vector<int32_t> numbers_;
  std::vector<int32_t> order_;
};

}  // namespace cuda
}  // namespace parley

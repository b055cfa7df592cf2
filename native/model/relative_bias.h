// Learned biases of attention scores by distance, in logarithmic buckets (T5, section 2.1 of https://arxiv.org/abs/1910.10683).
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/types.h"

namespace parley {

// The bucket of a distance, query's position - key's. Half of the buckets are exact, the others grow logarithmically up to
// max_distance. With `both_ways` the keys behind the query have the upper half of the buckets; otherwise there are none.
inline int64_t relative_bucket(int64_t distance, int64_t num_buckets, int64_t max_distance, bool both_ways) {
  int64_t first = 0;
  if (both_ways) {
    num_buckets /= 2;
    if (distance < 0) first = num_buckets;
    distance = std::abs(distance);
  }
  distance = std::max<int64_t>(distance, 0);
  const int64_t num_exact = num_buckets / 2;
  if (distance < num_exact) return first + distance;
  // In float32, as the reference rounds.
  const float octaves = std::log(static_cast<float>(distance) / static_cast<float>(num_exact)) /
                        static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(num_exact)));
  const int64_t bucket = num_exact + static_cast<int64_t>(octaves * static_cast<float>(num_buckets - num_exact));
  return first + std::min(bucket, num_buckets - 1);
}

// Columns of the table below: distances 0..max_distance, or as many to both sides of the middle.
inline int64_t relative_bias_cols(const ModelSpec& spec, bool both_ways) {
  return spec.relative_buckets == 0 ? 0 : (both_ways ? 2 : 1) * spec.relative_max_distance + 1;
}

// Fills AttentionRule::bias. biases [relative_buckets, num_heads], table [num_heads, relative_bias_cols]
inline void fill_relative_bias(Matrix<float> table, const ModelSpec& spec, const std::vector<float>& biases, bool both_ways) {
  for (int64_t column = 0; column < table.cols; ++column) {
    const int64_t distance = spec.relative_max_distance - column;
    const int64_t bucket = relative_bucket(distance, spec.relative_buckets, spec.relative_max_distance, both_ways);
    for (int64_t head = 0; head < spec.num_heads; ++head) {
      table.row(head)[column] = biases[static_cast<size_t>(bucket * spec.num_heads + head)];
    }
  }
}

}  // namespace parley

// Which rows the experts of a mixture compute: every pair of a token and one of its experts is a row, those of one expert stand together
// in order of their tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "base/tensor.h"

namespace parley {

class ExpertRows {
 public:
  // experts [T, k]: of each token, all below num_experts. Allocates nothing once it has seen the largest step.
  void sort(Matrix<const int32_t> experts, int64_t num_experts) {
    num_chosen_ = experts.cols;
    const auto each_pair = [&](const auto& function) {
      for (int64_t t = 0; t < experts.rows; ++t) {
        for (int64_t j = 0; j < experts.cols; ++j) function(t, t * experts.cols + j, static_cast<size_t>(experts.row(t)[j]));
      }
    };
    starts_.assign(static_cast<size_t>(num_experts + 1), 0);
    each_pair([&](int64_t, int64_t, size_t expert) { ++starts_[expert + 1]; });
    for (size_t e = 1; e < starts_.size(); ++e) starts_[e] += starts_[e - 1];
    next_ = starts_;
    rows_.resize(static_cast<size_t>(experts.rows * experts.cols));
    tokens_.resize(rows_.size());
    each_pair([&](int64_t token, int64_t pair, size_t expert) {
      const int32_t row = next_[expert]++;
      rows_[static_cast<size_t>(pair)] = row;
      tokens_[static_cast<size_t>(row)] = static_cast<int32_t>(token);
    });
  }

  int64_t num_rows() const { return static_cast<int64_t>(rows_.size()); }
  int64_t num_experts() const { return static_cast<int64_t>(starts_.size()) - 1; }

  // The rows of an expert.
  int64_t first(int64_t expert) const { return starts_[static_cast<size_t>(expert)]; }
  int64_t count(int64_t expert) const { return first(expert + 1) - first(expert); }

  // The token of a row, and the k rows of a token, in the order of its experts.
  int64_t token_of(int64_t row) const { return tokens_[static_cast<size_t>(row)]; }
  const int32_t* rows_of(int64_t token) const { return rows_.data() + token * num_chosen_; }

 private:
  int64_t num_chosen_ = 0;
  std::vector<int32_t> starts_;  // [num_experts + 1]
  std::vector<int32_t> next_;    // while sorting: each expert's next free row
  std::vector<int32_t> rows_;    // [T, k]
  std::vector<int32_t> tokens_;  // [T * k]
};

}  // namespace parley

// A step's lists as ops read them, one behind the other in the backend's block.
#pragma once

#include <vector>

#include "model/block.h"
#include "model/step.h"

namespace parley {

class StepLists {
 public:
  StepLists(const ModelSpec& spec, const StackLimits& limits, Backend& backend);

  // How many numbers there are, at most.
  static int64_t numbers(const ModelSpec& spec, const StackLimits& limits);

  // Begins the backend's block with the lists of a step. Throws Error if the step is larger than the limits. shape: the step's, or a larger
  // one if it only decodes: then it is filled up with rows that have a sequence of their own, write nowhere and choose nothing.
  void write(const Step& step, const StepShape& shape);

  int64_t num_rows() const { return tokens_.size; }
  Span<const int32_t> tokens() const { return tokens_; }
  Span<const int32_t> slots() const { return slots_; }
  const AttentionRows& rows() const { return rows_; }
  const AttentionRows& encoder_rows() const { return encoder_rows_; }  // for cross-attention
  Span<const int32_t> sample_rows() const { return sample_rows_; }
  Span<const int32_t> score_rows() const { return score_rows_; }
  Span<const int32_t> pool_rows() const { return pool_rows_; }

 private:
  Span<const int32_t> take(int64_t size);
  Span<int32_t> host(Span<const int32_t> place) const;
  Span<const int32_t> add(const std::vector<int32_t>& list, int64_t padding = 0, int32_t value = 0);
  Matrix<const int32_t> add_table(const std::vector<int32_t>& table, int64_t rows, int64_t cols, int64_t padded_rows, int64_t padded_cols);
  AttentionRows attention_rows(Span<const int32_t> positions, Span<const int32_t> sequences, Matrix<const int32_t> page_table) const;

  Backend& backend_;
  int64_t capacity_;  // numbers
  ListBlock block_;
  int64_t size_ = 0;  // numbers that are written
  Span<const int32_t> tokens_;
  Span<const int32_t> slots_;
  AttentionRows rows_;
  AttentionRows encoder_rows_;
  Span<const int32_t> sample_rows_;
  Span<const int32_t> score_rows_;
  Span<const int32_t> pool_rows_;
};

}  // namespace parley

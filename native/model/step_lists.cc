#include "model/step_lists.h"

#include <algorithm>

namespace parley {
namespace {

int64_t capacity(const ModelSpec& spec, const StackLimits& limits) {
  // Tokens, positions, slots and sequences, those that are scored, those that are pooled, and the encoder's positions.
  const int64_t of_a_row = spec.num_encoder_layers > 0 ? 7 : 6;
  const int64_t of_a_sequence = checked_mul(ceil_div(limits.positions, kPageSize), spec.num_encoder_layers > 0 ? 2 : 1);
  return checked_add(checked_add(checked_mul(limits.rows, of_a_row), limits.logit_rows), checked_mul(limits.sequences, of_a_sequence));
}

}  // namespace

int64_t StepLists::bytes(const ModelSpec& spec, const StackLimits& limits) {
  return checked_mul(capacity(spec, limits), static_cast<int64_t>(sizeof(int32_t)));
}

StepLists::StepLists(const ModelSpec& spec, int32_t first_token, const StackLimits& limits, Backend& backend)
    : backend_(backend),
      first_token_(first_token),
      capacity_(capacity(spec, limits)),
      arena_(backend, bytes(spec, limits)),
      block_(static_cast<int32_t*>(arena_.take(bytes(spec, limits)))) {
  host_block_.reserve(static_cast<size_t>(capacity_));
}

void StepLists::upload(const Step& step, const StepShape& shape) {
  for (const auto* rows : {&step.sample_rows, &step.score_rows, &step.pool_rows}) {
    for (const int32_t row : *rows) check(row >= 0 && row < step.num_rows(), "row ", row, ": the step has ", step.num_rows(), " rows");
  }
  const int64_t padding = shape.rows - step.num_rows();
  const int64_t num_sequences = step.num_sequences + padding;
  host_block_.clear();
  tokens_ = add(step.tokens, padding);
  for (int32_t& token : host_block_) token -= first_token_;
  slots_ = add(step.slots, padding, -1);
  const auto positions = add(step.positions, padding);
  const auto sequences = add(step.sequences, padding);
  for (int64_t i = 0; i < padding; ++i) *(host_block_.end() - padding + i) = static_cast<int32_t>(step.num_sequences + i);
  rows_ = attention_rows(positions, sequences,
                         add_table(step.page_table, step.num_sequences, step.max_pages, num_sequences, shape.max_pages));
  const auto encoder_positions = add(step.encoder_positions, step.encoder_positions.empty() ? 0 : padding);
  encoder_rows_ = attention_rows(
      encoder_positions, sequences,
      add_table(step.encoder_page_table, step.num_sequences, step.max_encoder_pages, num_sequences, shape.max_encoder_pages));
  sample_rows_ = add(step.sample_rows, padding);
  score_rows_ = add(step.score_rows);
  pool_rows_ = add(step.pool_rows);
  backend_.upload(block_, host_block_.data(), static_cast<int64_t>(host_block_.size() * sizeof(int32_t)));
}

// A list's place in the block, in the memory of ops. `padding` times `value` stand behind it.
Span<const int32_t> StepLists::add(const std::vector<int32_t>& list, int64_t padding, int32_t value) {
  const int64_t first = static_cast<int64_t>(host_block_.size());
  const int64_t size = static_cast<int64_t>(list.size()) + padding;
  check(size <= capacity_ - first, "lists of a step: ", first, " + ", size, " numbers, expected at most ", capacity_);
  host_block_.insert(host_block_.end(), list.begin(), list.end());
  host_block_.insert(host_block_.end(), static_cast<size_t>(padding), value);
  return {block_ + first, size};
}

// The same of a table [rows, cols], with page 0 around it.
Matrix<const int32_t> StepLists::add_table(const std::vector<int32_t>& table, int64_t rows, int64_t cols, int64_t padded_rows,
                                           int64_t padded_cols) {
  const auto place = add({}, padded_rows * padded_cols);
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(table.begin() + row * cols, cols, host_block_.end() - place.size + row * padded_cols);
  }
  return {place.data, padded_rows, padded_cols};
}

AttentionRows StepLists::attention_rows(Span<const int32_t> positions, Span<const int32_t> sequences,
                                        Matrix<const int32_t> page_table) const {
  AttentionRows rows;
  rows.positions = positions;
  rows.sequences = sequences;
  rows.page_table = page_table;
  rows.host_positions = host_block_.data() + (positions.data - block_);
  rows.host_sequences = host_block_.data() + (sequences.data - block_);
  return rows;
}

}  // namespace parley

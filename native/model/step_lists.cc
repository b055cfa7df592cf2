#include "model/step_lists.h"

#include <algorithm>

namespace parley {

int64_t StepLists::numbers(const ModelSpec& spec, const StackLimits& limits) {
  // Tokens, positions, slots and sequences, those that are scored, those that are pooled, and the encoder's positions.
  const int64_t of_a_row = spec.num_encoder_layers > 0 ? 7 : 6;
  const int64_t of_a_sequence = checked_mul(ceil_div(limits.positions, kPageSize), spec.num_encoder_layers > 0 ? 2 : 1);
  return checked_add(checked_add(checked_mul(limits.rows, of_a_row), limits.logit_rows), checked_mul(limits.sequences, of_a_sequence));
}

StepLists::StepLists(const ModelSpec& spec, const StackLimits& limits, Backend& backend)
    : backend_(backend), capacity_(numbers(spec, limits)) {}

void StepLists::write(const Step& step, const StepShape& shape) {
  for (const auto* rows : {&step.sample_rows, &step.score_rows, &step.pool_rows}) {
    for (const int32_t row : *rows) check(row >= 0 && row < step.num_rows(), "row ", row, ": the step has ", step.num_rows(), " rows");
  }
  const int64_t padding = shape.rows - step.num_rows();
  const int64_t encoder_padding = step.encoder_positions.empty() ? 0 : padding;
  const int64_t num_sequences = step.num_sequences + padding;
  int64_t count = 5 * padding + encoder_padding + num_sequences * (shape.max_pages + shape.max_encoder_pages);
  for (const auto* list : {&step.tokens, &step.slots, &step.positions, &step.sequences, &step.encoder_positions, &step.sample_rows,
                           &step.score_rows, &step.pool_rows}) {
    count += static_cast<int64_t>(list->size());
  }
  check(count <= capacity_, "lists of a step: ", count, " numbers, expected at most ", capacity_);
  block_ = backend_.begin_block(count);
  size_ = 0;
  tokens_ = add(step.tokens, padding);
  slots_ = add(step.slots, padding, -1);
  const auto positions = add(step.positions, padding);
  const auto sequences = add(step.sequences, padding);
  for (int64_t i = 0; i < padding; ++i) host(sequences)[step.num_rows() + i] = static_cast<int32_t>(step.num_sequences + i);
  const auto pages = add_table(step.page_table, step.num_sequences, step.max_pages, num_sequences, shape.max_pages);
  rows_ = attention_rows(positions, sequences, pages);
  const auto encoder_positions = add(step.encoder_positions, encoder_padding);
  const auto encoder_pages =
      add_table(step.encoder_page_table, step.num_sequences, step.max_encoder_pages, num_sequences, shape.max_encoder_pages);
  encoder_rows_ = attention_rows(encoder_positions, sequences, encoder_pages);
  sample_rows_ = add(step.sample_rows, padding);
  score_rows_ = add(step.score_rows);
  pool_rows_ = add(step.pool_rows);
}

// The next `size` numbers of the block, in the memory of ops.
Span<const int32_t> StepLists::take(int64_t size) {
  const Span<const int32_t> place{block_.ops + size_, size};
  size_ += size;
  return place;
}

// The same numbers in the host's memory.
Span<int32_t> StepLists::host(Span<const int32_t> place) const { return {block_.host + (place.data - block_.ops), place.size}; }

// `padding` times `value` stand behind the list.
Span<const int32_t> StepLists::add(const std::vector<int32_t>& list, int64_t padding, int32_t value) {
  const auto place = take(static_cast<int64_t>(list.size()) + padding);
  std::fill_n(std::copy(list.begin(), list.end(), host(place).data), padding, value);
  return place;
}

// A table [rows, cols], with page 0 around it.
Matrix<const int32_t> StepLists::add_table(const std::vector<int32_t>& table, int64_t rows, int64_t cols, int64_t padded_rows,
                                           int64_t padded_cols) {
  const auto place = take(padded_rows * padded_cols);
  const auto numbers = host(place);
  std::fill(numbers.begin(), numbers.end(), 0);
  for (int64_t row = 0; row < rows; ++row) std::copy_n(table.begin() + row * cols, cols, numbers.data + row * padded_cols);
  return {place.data, padded_rows, padded_cols};
}

AttentionRows StepLists::attention_rows(Span<const int32_t> positions, Span<const int32_t> sequences,
                                        Matrix<const int32_t> page_table) const {
  AttentionRows rows;
  rows.positions = positions;
  rows.sequences = sequences;
  rows.page_table = page_table;
  rows.host_positions = host(positions).data;
  rows.host_sequences = host(sequences).data;
  return rows;
}

}  // namespace parley

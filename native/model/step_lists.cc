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

void StepLists::upload(const Step& step) {
  for (const auto* rows : {&step.sample_rows, &step.score_rows, &step.pool_rows}) {
    for (const int32_t row : *rows) check(row >= 0 && row < step.num_rows(), "row ", row, ": the step has ", step.num_rows(), " rows");
  }
  host_block_.clear();
  tokens_ = add(step.tokens);
  for (int32_t& token : host_block_) token -= first_token_;
  slots_ = add(step.slots);
  const auto positions = add(step.positions);
  const auto sequences = add(step.sequences);
  rows_ = attention_rows(positions, sequences, add(step.page_table), step.num_sequences, step.max_pages);
  const auto encoder_positions = add(step.encoder_positions);
  encoder_rows_ =
      attention_rows(encoder_positions, sequences, add(step.encoder_page_table), step.num_sequences, step.max_encoder_pages);
  sample_rows_ = add(step.sample_rows);
  score_rows_ = add(step.score_rows);
  pool_rows_ = add(step.pool_rows);
  backend_.upload(block_, host_block_.data(), static_cast<int64_t>(host_block_.size() * sizeof(int32_t)));
}

// A list's place in the block, in the memory of ops.
Span<const int32_t> StepLists::add(const std::vector<int32_t>& list) {
  const int64_t first = static_cast<int64_t>(host_block_.size());
  const int64_t size = static_cast<int64_t>(list.size());
  check(size <= capacity_ - first, "lists of a step: ", first, " + ", size, " numbers, expected at most ", capacity_);
  host_block_.insert(host_block_.end(), list.begin(), list.end());
  return {block_ + first, size};
}

AttentionRows StepLists::attention_rows(Span<const int32_t> positions, Span<const int32_t> sequences, Span<const int32_t> page_table,
                                        int64_t num_sequences, int64_t max_pages) const {
  AttentionRows rows;
  rows.positions = positions;
  rows.sequences = sequences;
  rows.page_table = {page_table.data, num_sequences, max_pages};
  rows.host_positions = host_block_.data() + (positions.data - block_);
  rows.host_sequences = host_block_.data() + (sequences.data - block_);
  return rows;
}

}  // namespace parley

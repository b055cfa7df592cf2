// One step of the engine as data: which tokens of which requests are computed, where their keys and values go, and which rows
// choose a token, score one or are pooled. Built by the scheduler, read by every rank's worker.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/types.h"

namespace parley {

// A prompt on its way through the encoder's blocks [first_layer, last_layer).
struct EncoderJob {
  Span<const int32_t> tokens;
  Span<const int32_t> pages;  // for what the decoder reads; written behind the last block
  int64_t first_layer;
  int64_t last_layer;
};

// A page that two requests share goes to one of them as a copy, before they write different tokens into it.
struct PageCopy {
  int32_t from;
  int32_t to;
};

struct Step {
  // Done before all else, one after the other.
  std::vector<PageCopy> page_copies;

  // Done before the rows. One that stops before the last block goes on in the next step, before any other.
  std::vector<EncoderJob> encoder_jobs;

  // One entry a row; rows of one sequence stand together in order of position. A token that the step before is still choosing is
  // kChosenToken + its sample row there. [T]
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<int32_t> slots;      // page * kPageSize + offset of the row's key and value
  std::vector<int32_t> sequences;  // index into page_table

  // Pages of each sequence, padded with 0 to max_pages columns. [num_sequences, max_pages]
  std::vector<int32_t> page_table;
  int64_t num_sequences = 0;
  int64_t max_pages = 0;

  // With an encoder: the last token of each row's encoded prompt [T], and the prompts' pages [num_sequences, max_encoder_pages].
  std::vector<int32_t> encoder_positions;
  std::vector<int32_t> encoder_page_table;
  int64_t max_encoder_pages = 0;

  // Rows that choose a token, and how. [R] each
  std::vector<int32_t> sample_rows;
  std::vector<SampleRow> samples;

  // Rows that tell the log-probability of a given next token. [S] each
  std::vector<int32_t> score_rows;
  std::vector<ScoreRow> scores;

  // Rows whose hidden state is added to a request's sum, in order of position. [P] each
  std::vector<int32_t> pool_rows;
  std::vector<std::vector<double>*> pool_sums;

  StepShape shape() const { return {num_rows(), max_pages, max_encoder_pages}; }

  // Whether it has the form that StepShape tells of: nothing but the next token of some sequences.
  bool only_decodes() const {
    return encoder_jobs.empty() && num_rows() == num_sequences && sample_rows.size() == tokens.size() && scores.empty() &&
           pool_rows.empty();
  }

  // Whether all that it tells are the tokens that it chooses.
  bool only_chooses() const { return scores.empty() && pool_rows.empty(); }

  bool empty() const { return tokens.empty() && encoder_jobs.empty(); }
  int64_t num_rows() const { return static_cast<int64_t>(tokens.size()); }

  void clear() {
    for (auto* list : {&tokens, &positions, &slots, &sequences, &page_table, &encoder_positions, &encoder_page_table, &sample_rows,
                       &score_rows, &pool_rows}) {
      list->clear();
    }
    page_copies.clear();
    encoder_jobs.clear();
    samples.clear();
    scores.clear();
    pool_sums.clear();
    num_sequences = max_pages = max_encoder_pages = 0;
  }
};

struct StepResult;

// A step, and where its results go.
struct StepRun {
  const Step* step = nullptr;
  StepResult* result = nullptr;
};

// What a step's sample rows chose. [R] and [R, kMaxLogprobs]; a row's first num_top() columns of top_* are meant. Several ranks write into
// the same one, each into its rows.
struct StepResult {
  std::vector<int32_t> tokens;  // -1: no logit of the row was a number
  std::vector<float> logprobs;
  std::vector<int32_t> ranks;
  std::vector<int32_t> top_tokens;
  std::vector<float> top_logprobs;

  // The same of the step's score rows. [S] and [S, kMaxLogprobs]
  std::vector<float> score_logprobs;
  std::vector<int32_t> score_ranks;
  std::vector<int32_t> score_top_tokens;
  std::vector<float> score_top_logprobs;

  void resize(size_t num_samples, size_t num_scores) {
    tokens.resize(num_samples);
    logprobs.resize(num_samples);
    ranks.resize(num_samples);
    top_tokens.resize(num_samples * kMaxLogprobs);
    top_logprobs.resize(num_samples * kMaxLogprobs);
    score_logprobs.resize(num_scores);
    score_ranks.resize(num_scores);
    score_top_tokens.resize(num_scores * kMaxLogprobs);
    score_top_logprobs.resize(num_scores * kMaxLogprobs);
  }
};

}  // namespace parley

// The one forward pass: a step's tokens in, hidden states out. Every decoder family is this code with another ModelSpec.
#pragma once

#include "base/arena.h"
#include "model/kv_cache.h"
#include "model/step.h"
#include "model/weights.h"

namespace parley {

class Decoder {
 public:
  // max_rows: tokens in one step; max_positions: longest sequence; max_logit_rows: rows that unembed() takes at a time.
  Decoder(const ModelSpec& spec, const Weights& weights, const KvCache& kv_cache, Backend& backend, int64_t max_rows,
          int64_t max_positions, int64_t max_logit_rows);

  // Runs all the blocks over the step's rows and writes their keys and values.
  void forward(const Step& step);

  // Hidden states [rows.size(), hidden] behind the final norm, of the given rows of the last forward(). Valid until the next call.
  Matrix<float> final_hidden(Span<const int32_t> rows);

  // Logits [rows.size(), vocab] of the same. The caller may write into them.
  Matrix<float> unembed(Span<const int32_t> rows);

  // Rows that the two take at a time.
  int64_t max_logit_rows() const { return logits_.rows; }

 private:
  void attend(const Step& step, int64_t layer);

  const ModelSpec& spec_;
  const Weights& weights_;
  const KvCache& kv_cache_;
  Backend& backend_;
  HeadLayout heads_;
  Arena workspace_;
  int64_t num_rows_ = 0;
  // Workspace; every matrix has max_rows rows but for the last two.
  Matrix<float> hidden_;     // [T, H] the residual stream
  Matrix<float> normed_;     // [T, H]
  Matrix<float> qkv_;        // [T, Q + 2 KV]
  Matrix<float> attention_;  // [T, Q]
  Matrix<float> mlp_;        // [T, F]
  Matrix<float> gathered_;   // [R, H]
  Matrix<float> logits_;     // [R, V]
  Matrix<float> cos_sin_;    // [max_positions, rope_dims]: cosines, then sines
};

}  // namespace parley

// How many tokens of prompts may join a step whose other rows decode, so that those who read the streams hardly notice: a prompt is paid
// for with time that the decodes save up for it. Learns from the steps what a step and a token of a prompt take.
#pragma once

#include <array>
#include <cstdint>

namespace parley {

class PrefillPace {
 public:
  // Tokens of prompts that the next step may take beside `num_decodes` rows, which save up a part of their time in it.
  // num_behind: prompts that wait behind the one whose turn it is; where they pile up, getting them to decode is worth more.
  int64_t save_up(int64_t num_decodes, int64_t num_behind);

  // What the step was and how long it took.
  void ran(int64_t num_decodes, int64_t num_prompt_tokens, double ms);

 private:
  double& decode_ms(int64_t num_decodes);

  // Of a step of [2^i, 2^(i + 1)) rows that decode; 0: not known yet.
  std::array<double, 32> decode_ms_{};
  double token_ms_ = 0;  // of a prompt's token beside decodes; 0: not known yet
  double saved_ms_ = 0;
};

}  // namespace parley

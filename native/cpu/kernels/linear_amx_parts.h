// What linear_amx.h and linear_amx_stream.h share: how tokens are laid out, how weights are split.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

constexpr int64_t kAmxTokens = 16;    // rows of a tile
constexpr int64_t kAmxCols = 32;      // columns of a row of bfloat16
constexpr int64_t kAmxNumbers = 512;  // of a tile
constexpr int64_t kTokenTerms = 3;

// Most groups in a block of tokens. With more than kStreamGroups the arithmetic takes longer than the memory, and a panel goes alone.
constexpr int64_t kBlockGroups = 16;
constexpr int64_t kStreamGroups = kBlockGroups / kStreamPanels;

constexpr int64_t weight_terms(const Fp16*) { return 2; }
constexpr int64_t weight_terms(const Bf16*) { return 1; }

// A chunk: split weights of one panel, as many as two chunks fit into the first-level cache with. The longer, the less often sums are
// loaded and stored. Columns of a chunk where several panels are walked at once: fewer, for they all are on their way at once.
constexpr int64_t kAmxChunkNumbers = 256 * kPanelRows;
constexpr int64_t kAmxStreamCols = 64;

// Tokens that are read again for every panel lie in the second-level cache (2 MiB on every machine with AMX) and leave room there for
// the rest: measured, with 1.6 MB of them arithmetic takes twice as long as with 1 MB.
constexpr int64_t kAmxTokenBytes = 1200 * 1024;

// Sums of a thread: tiles of 16 tokens times one panel.
constexpr int64_t kAmxSums = 32 * kBlockGroups;

constexpr int64_t kAmxScratch = kAmxChunkNumbers + kAmxSums * kAmxTokens * kPanelRows;

PARLEY_INLINE int64_t amx_blocks(int64_t cols) { return (cols + kAmxCols - 1) / kAmxCols; }

// Groups differ by at most one token. All get the rows of the largest; those behind a group's last token are whatever was there.
PARLEY_INLINE int64_t amx_rows(int64_t num_tokens, int64_t num_groups) { return (num_tokens + num_groups - 1) / num_groups; }

// Tokens lie as [group][block of 32 columns][term][row][32]. Numbers of a group's block:
PARLEY_INLINE int64_t block_numbers(int64_t rows) { return kTokenTerms * rows * kAmxCols; }

int64_t packed_bytes_amx(int64_t num_tokens, int64_t cols) {
  // A call of n tokens has at most n + n / 16 rows.
  return (num_tokens + num_tokens / kAmxTokens) * amx_blocks(cols) * block_numbers(1) * static_cast<int64_t>(sizeof(Bf16));
}

LinearPlan plan_amx(int64_t num_tokens, int64_t cols) {
  const int64_t num_groups = (num_tokens + kAmxTokens - 1) / kAmxTokens;
  return {num_groups, (num_groups + kBlockGroups - 1) / kBlockGroups,
          num_groups * amx_blocks(cols) * block_numbers(amx_rows(num_tokens, num_groups)) * static_cast<int64_t>(sizeof(Bf16)),
          kStreamPanels};
}

void pack_tokens_amx(Bf16* packed, const float* x, int64_t x_stride, int64_t num_tokens, int64_t num_groups, int64_t cols,
                     int64_t first_col, int64_t last_col) {
  const int64_t rows = amx_rows(num_tokens, num_groups);
  for (int64_t group = 0; group < num_groups; ++group) {
    const int64_t first_token = num_tokens * group / num_groups;
    const int64_t tokens = num_tokens * (group + 1) / num_groups - first_token;
    for (int64_t k = first_col; k < last_col; k += kAmxCols) {
      Bf16* row = packed + (group * amx_blocks(cols) + k / kAmxCols) * block_numbers(rows);
      for (int64_t t = 0; t < tokens; ++t, row += kAmxCols) {
        const float* source = x + (first_token + t) * x_stride + k;
        const int64_t left = last_col - k;
        Vec a = left >= 16 ? load(source) : load_partial(source, left);
        Vec b = left >= 32 ? load(source + 16) : left > 16 ? load_partial(source + 16, left - 16) : zero();
        for (int64_t term = 0; term < kTokenTerms; ++term) {
          const __m512i rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.v, a.v));
          _mm512_store_si512(row + term * rows * kAmxCols, rounded);
          a = a - from_bf16(_mm512_castsi512_si256(rounded));
          b = b - from_bf16(_mm512_extracti64x4_epi64(rounded, 1));
        }
      }
    }
  }
}

// A float16's first term is cut off, not rounded, which takes an instruction less.
PARLEY_INLINE __m512 first_term(__m512 w) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(w), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

// The upper halves of 16 pairs.
PARLEY_INLINE __m512i upper_halves(__m512 even, __m512 odd) {
  return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(_mm512_castps_si512(even), 16), _mm512_castps_si512(odd));
}

// Columns (even, odd) of 16 outputs, in pairs; a second term lies two tiles further. Without an odd one its place is 0.
PARLEY_INLINE void split_pair(Bf16* to, const Fp16* even, const Fp16* odd) {
  const __m512 a = load(even).v;
  const __m512 b = odd ? load(odd).v : _mm512_setzero_ps();
  const __m512 a1 = first_term(a);
  const __m512 b1 = first_term(b);
  _mm512_store_si512(to, upper_halves(a1, b1));
  _mm512_store_si512(to + 2 * kAmxNumbers, upper_halves(_mm512_sub_ps(a, a1), _mm512_sub_ps(b, b1)));
}
PARLEY_INLINE void split_pair(Bf16* to, const Bf16* even, const Bf16* odd) {
  const __m512i a = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even)));
  const __m512i b = odd ? _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd))) : _mm512_setzero_si512();
  _mm512_store_si512(to, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
}

// Tokens of a group.
PARLEY_INLINE int64_t first_token_of(const LinearCall& call, int64_t group) { return call.num_tokens * group / call.num_groups; }

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

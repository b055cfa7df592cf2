// Brings stored rows into the panels of a packed weight, and gathers rows back for the embedding.
#pragma once

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <cstddef>

#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

template <class Number, class Stored>
struct Convert {
  static PARLEY_INLINE void run(Number* to, const Stored* from) { store(to, load(from)); }
};
template <class Number>
struct Convert<Number, Number> {  // no detour through float32: a NaN keeps its bits
  static PARLEY_INLINE void run(Number* to, const Number* from) {
    __builtin_memcpy(to, from, kLanes * sizeof(Number));
  }
};

// target [16][32] = square [32][16], turned; target's rows are kPanelRows apart.
template <class Number>
PARLEY_INLINE void turn(Number* target, const Number (&square)[kPanelRows][kLanes]) {
  for (int64_t i = 0; i < kLanes; ++i) {
    for (int64_t r = 0; r < kPanelRows; ++r) target[i * kPanelRows + r] = square[r][i];
  }
}

#ifdef __SSE2__
// 8 x 8 16-bit numbers in three rounds of interleaving.
PARLEY_INLINE void turn_bits(uint16_t* target, const uint16_t* square) {
  for (int64_t r = 0; r < kPanelRows; r += 8) {
    for (int64_t i = 0; i < kLanes; i += 8) {
      __m128i a[8], b[8];
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) a[j] = _mm_load_si128(reinterpret_cast<const __m128i*>(square + (r + j) * kLanes + i));
#pragma GCC unroll 3
      for (int round = 0; round < 3; ++round) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          b[2 * j] = _mm_unpacklo_epi16(a[j], a[j + 4]);
          b[2 * j + 1] = _mm_unpackhi_epi16(a[j], a[j + 4]);
        }
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) a[j] = b[j];
      }
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) _mm_storeu_si128(reinterpret_cast<__m128i*>(target + (i + j) * kPanelRows + r), a[j]);
    }
  }
}
PARLEY_INLINE void turn(Fp16* target, const Fp16 (&square)[kPanelRows][kLanes]) {
  turn_bits(&target->bits, &square[0][0].bits);
}
PARLEY_INLINE void turn(Bf16* target, const Bf16 (&square)[kPanelRows][kLanes]) {
  turn_bits(&target->bits, &square[0][0].bits);
}
#endif

// 16 columns at a time: each row's 16 numbers are converted into a square that is then written out turned.
template <class Number, class Stored>
void pack_panel_of(Number* panel, int64_t cols, int64_t first_row, int64_t num_rows, const char* stored, int64_t stride_bytes) {
  alignas(64) Number square[kPanelRows][kLanes];
  Stored from[kLanes];
  for (int64_t k = 0; k < cols; k += kLanes) {
    const int64_t width = cols - k < kLanes ? cols - k : kLanes;
    for (int64_t r = 0; r < num_rows; ++r) {
      const char* source = stored + r * stride_bytes + k * static_cast<int64_t>(sizeof(Stored));
      if (width == kLanes) {
        __builtin_memcpy(from, source, sizeof from);  // a checkpoint's tensors can start at any byte
      } else {
        __builtin_memset(from, 0, sizeof from);
        __builtin_memcpy(from, source, static_cast<size_t>(width) * sizeof(Stored));
      }
      Convert<Number, Stored>::run(square[r], from);
    }
    Number* target = panel + k * kPanelRows + first_row;
    if (num_rows == kPanelRows && width == kLanes) {
      turn(target, square);
    } else {
      for (int64_t i = 0; i < width; ++i) {
        for (int64_t r = 0; r < num_rows; ++r) target[i * kPanelRows + r] = square[r][i];
      }
    }
  }
}

template <class Number>
PARLEY_INLINE void pack_panel_from(Number* panel, int64_t cols, int64_t first_row, int64_t num_rows, const void* stored,
                                   NumberType stored_dtype, int64_t stride_bytes) {
  const char* bytes = static_cast<const char*>(stored);
  if (stored_dtype == NumberType::float32) {
    pack_panel_of<Number, float>(panel, cols, first_row, num_rows, bytes, stride_bytes);
  } else if (stored_dtype == NumberType::float16) {
    pack_panel_of<Number, Fp16>(panel, cols, first_row, num_rows, bytes, stride_bytes);
  } else {
    pack_panel_of<Number, Bf16>(panel, cols, first_row, num_rows, bytes, stride_bytes);
  }
}

void pack_panel(void* panel, NumberType dtype, int64_t cols, int64_t first_row, int64_t num_rows, const void* stored,
                NumberType stored_dtype, int64_t stride_bytes) {
  if (dtype == NumberType::float32) {
    pack_panel_from(static_cast<float*>(panel), cols, first_row, num_rows, stored, stored_dtype, stride_bytes);
  } else if (dtype == NumberType::float16) {
    pack_panel_from(static_cast<Fp16*>(panel), cols, first_row, num_rows, stored, stored_dtype, stride_bytes);
  } else {
    pack_panel_from(static_cast<Bf16*>(panel), cols, first_row, num_rows, stored, stored_dtype, stride_bytes);
  }
}

template <class Number>
void embed_row(float* out, const Number* table, int64_t cols, int64_t row) {
  const Number* source = table + row / kPanelRows * cols * kPanelRows + row % kPanelRows;
  Number gathered[kLanes];
  for (int64_t k = 0; k < cols; k += kLanes) {
    const int64_t width = cols - k < kLanes ? cols - k : kLanes;
    for (int64_t i = 0; i < width; ++i) gathered[i] = source[(k + i) * kPanelRows];
    if (width == kLanes) {
      store(out + k, load(gathered));
    } else {
      store_partial(out + k, load_partial(gathered, width), width);
    }
  }
}

void embed(float* out, const void* table, NumberType dtype, int64_t cols, int64_t row) {
  if (dtype == NumberType::float32) {
    embed_row(out, static_cast<const float*>(table), cols, row);
  } else if (dtype == NumberType::float16) {
    embed_row(out, static_cast<const Fp16*>(table), cols, row);
  } else {
    embed_row(out, static_cast<const Bf16*>(table), cols, row);
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

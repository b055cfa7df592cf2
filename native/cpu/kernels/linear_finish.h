// What happens to the sums of `linear`: bias, epilogue, store.
#pragma once

#include "cpu/kernels/activation.h"
#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// Bias and epilogue of one vector of sums. `out` is where they go; n < 16 at the end of the last panel.
template <int epilogue>
PARLEY_INLINE void finish(float* out, Vec y, const float* bias, int64_t n) {
  const bool whole = n >= kLanes;
  if (bias) y = y + (whole ? load(bias) : load_partial(bias, n));
  if (epilogue == 1) y = gelu(y);
  if (epilogue == 2) y = gelu_tanh(y);
  if (epilogue == 3) y = relu(y);
  if (epilogue == 4) y = (whole ? load(out) : load_partial(out, n)) + y;
  if (epilogue == 5) y = silu(y);
  if (whole) {
    store(out, y);
  } else {
    store_partial(out, y, n);
  }
}

template <int epilogue>
void finish_tile(float* out, int64_t out_stride, const float* y, int64_t y_stride, int64_t tokens, const float* bias, int64_t outputs) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < outputs; i += kLanes) {
      finish<epilogue>(out + t * out_stride + i, load(y + t * y_stride + i), bias ? bias + i : nullptr, outputs - i);
    }
  }
}

// Asks for the lines that finish_tokens will write, some time before: row after row lies too far apart for the machine to foresee.
PARLEY_INLINE void prefetch_outputs(const LinearCall& call, int64_t first_token, int64_t tokens, int64_t panel, int64_t panels = 1) {
  const float* out = call.out + first_token * call.out_stride + panel * kPanelRows;
  for (int64_t t = 0; t < tokens; ++t, out += call.out_stride) {
    for (int64_t i = 0; i < panels * kPanelRows; i += kLanes) __builtin_prefetch(out + i, 1);
  }
}

// y [tokens][panels x 32]: the sums of panels side by side for the tokens from first_token on.
PARLEY_INLINE void finish_tokens(const LinearCall& call, int64_t first_token, int64_t tokens, int64_t panel, const float* y,
                                 int64_t panels = 1) {
  const int64_t y_stride = panels * kPanelRows;
  const int64_t first_output = panel * kPanelRows;
  const int64_t outputs = call.rows - first_output < y_stride ? call.rows - first_output : y_stride;
  float* out = call.out + first_token * call.out_stride + first_output;
  const float* bias = call.bias ? call.bias + first_output : nullptr;
  switch (call.epilogue) {
    case 0: finish_tile<0>(out, call.out_stride, y, y_stride, tokens, bias, outputs); break;
    case 1: finish_tile<1>(out, call.out_stride, y, y_stride, tokens, bias, outputs); break;
    case 2: finish_tile<2>(out, call.out_stride, y, y_stride, tokens, bias, outputs); break;
    case 3: finish_tile<3>(out, call.out_stride, y, y_stride, tokens, bias, outputs); break;
    case 4: finish_tile<4>(out, call.out_stride, y, y_stride, tokens, bias, outputs); break;
    default: finish_tile<5>(out, call.out_stride, y, y_stride, tokens, bias, outputs); break;
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

// y = x W^T + bias, then an epilogue.
//
// W is packed in panels of 32 outputs, [cols][32], so that a step of the inner loop reads one run of memory. Every output has one order
// of summation; the files below say which.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_float32.h"
#if PARLEY_LEVEL == 3
#include "cpu/kernels/linear_amx.h"
#endif

namespace parley {
namespace PARLEY_ISA {
namespace {

#if PARLEY_LEVEL == 3
PARLEY_INLINE bool uses_tiles(NumberType dtype) { return dtype != NumberType::float32; }
constexpr int64_t kLinearScratch = kAmxScratch > kFloat32Scratch ? kAmxScratch : kFloat32Scratch;
#else
constexpr int64_t kLinearScratch = kFloat32Scratch;
#endif

LinearPlan plan_linear(NumberType dtype, int64_t num_tokens, int64_t cols) {
#if PARLEY_LEVEL == 3
  if (uses_tiles(dtype)) return plan_amx(num_tokens, cols);
#endif
  (void)dtype;
  return plan_float32(num_tokens, cols);
}

int64_t packed_tokens_bytes(int64_t num_tokens, int64_t cols) {
#if PARLEY_LEVEL == 3
  return packed_bytes_amx(num_tokens, cols);
#else
  return packed_bytes_float32(num_tokens, cols);
#endif
}

void pack_tokens(void* packed, NumberType dtype, const float* x, int64_t x_stride, int64_t num_tokens, int64_t num_groups, int64_t cols,
                 int64_t first_col, int64_t last_col) {
#if PARLEY_LEVEL == 3
  if (uses_tiles(dtype)) {
    return pack_tokens_amx(static_cast<Bf16*>(packed), x, x_stride, num_tokens, num_groups, cols, first_col, last_col);
  }
#endif
  (void)dtype;
  pack_tokens_float32(static_cast<float*>(packed), x, x_stride, num_tokens, num_groups, cols, first_col, last_col);
}

void linear(const LinearCall& call, int64_t first_task, int64_t last_task, float* scratch) {
  const int64_t num_panels = (call.rows + kPanelRows - 1) / kPanelRows;
  for (int64_t task = first_task; task < last_task;) {
    const int64_t block = task / num_panels;
    const int64_t stop = last_task < (block + 1) * num_panels ? last_task : (block + 1) * num_panels;
    const int64_t first_panel = task - block * num_panels;
    const int64_t last_panel = stop - block * num_panels;
    const int64_t first_group = call.num_groups * block / call.num_blocks;
    const int64_t last_group = call.num_groups * (block + 1) / call.num_blocks;
#if PARLEY_LEVEL == 3
    if (uses_tiles(call.dtype)) {
      linear_amx(call, first_panel, last_panel, first_group, last_group, scratch);
    } else
#endif
    {
      linear_float32(call, first_panel, last_panel, first_group, last_group, scratch);
    }
    task = stop;
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

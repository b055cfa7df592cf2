// All kernels of one instruction set. Compiled once for each, with PARLEY_ISA naming it and its own compiler flags (binding.gyp).
#include "cpu/kernels/attention.h"
#include "cpu/kernels/calibrate.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/experts.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/layer_norm.h"
#include "cpu/kernels/linear.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/rope.h"
#include "cpu/kernels/sample.h"

namespace parley {
namespace PARLEY_ISA {

extern const Kernels kKernels;
const Kernels kKernels = {
    plan_linear, packed_tokens_bytes, pack_tokens, kLinearScratch, linear, pack_panel, embed,     layer_norm,        rms_norm,  sum,
    softcap,     gate,                route,       add_shares,     rope,   write_kv,   attention_scratch, attention, sample,    score,
    read_sum,    fma_loop,
};

}  // namespace PARLEY_ISA
}  // namespace parley

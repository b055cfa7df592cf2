// Which instruction sets this machine and this build have.
#pragma once

#include "contract.h"

namespace parley {

struct Kernels;

// Whether the kernels of `isa` (not auto_) were built and can run here.
bool has_isa(Isa isa);

// The best of them for weights of `dtype`. Tiles multiply bfloat16 as it is; float16 costs them five products instead of three and the
// splitting of every weight, so that a few tokens at a time, which wait for the weights, go slower than with AVX-512.
Isa best_isa(DType dtype);

// The kernels of `isa`; auto_ is what is best for float32. Throws Error if the machine lacks it.
const Kernels& kernels_for(Isa isa);

const char* isa_name(Isa isa);

}  // namespace parley

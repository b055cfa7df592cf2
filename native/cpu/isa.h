// Which instruction sets this machine and this build have.
#pragma once

#include "contract.h"

namespace parley {

struct Kernels;

// Whether the kernels of `isa` (not auto_) were built and can run here.
bool has_isa(Isa isa);

// The best of them.
Isa best_isa();

// The kernels of `isa`; auto_ is best_isa(). Throws Error if the machine lacks it.
const Kernels& kernels_for(Isa isa);

const char* isa_name(Isa isa);

}  // namespace parley

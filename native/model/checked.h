// What contract.def's ranges cannot say: how the fields of a spec fit together.
#pragma once

#include "contract.h"

namespace parley {

// The spec itself. Throws Error naming the field that does not fit, what was expected and what came.
const ModelSpec& checked(const ModelSpec& spec);

}  // namespace parley

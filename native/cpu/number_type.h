// A weight's type as the kernels know it.
#pragma once

#include "base/dtype.h"
#include "cpu/kernels/kernels.h"

namespace parley {

static_assert(static_cast<int>(NumberType::float32) == static_cast<int>(DType::float32), "");
static_assert(static_cast<int>(NumberType::float16) == static_cast<int>(DType::float16), "");
static_assert(static_cast<int>(NumberType::bfloat16) == static_cast<int>(DType::bfloat16), "");

inline NumberType number_type(DType dtype) { return static_cast<NumberType>(dtype); }

}  // namespace parley

// The small interface where the model meets a device. One implementation a device: cpu/, cuda/.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/types.h"

namespace parley {

class Backend {
 public:
  virtual ~Backend() = default;

  static constexpr int64_t kAlignment = 256;

#define METHOD(...) virtual __VA_ARGS__;
#include "ops/backend.def"
#undef METHOD
#define OP(name, arguments) virtual void name arguments = 0;
#include "ops/ops.def"
#undef OP
};

}  // namespace parley

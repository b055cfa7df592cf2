// The small interface where the model meets a device. One implementation a device: cpu/, cuda/.
#pragma once

#include <memory>
#include <string>

#include "ops/types.h"

namespace parley {

class Backend {
 public:
  virtual ~Backend() = default;

  // Bytes of a packed weight [rows, cols].
  virtual int64_t packed_bytes(int64_t rows, int64_t cols, DType dtype) const = 0;

  // Packs rows of one matrix or many, no row twice. Many at once keep all threads busy; nothing is read behind the call.
  virtual void pack_rows(Span<const StoredRows> runs) = 0;

  // Bytes that the ops keep between calls, once they have seen the largest ones.
  virtual int64_t scratch_bytes(const ScratchLimits& limits) const = 0;

  // Bytes that they keep now.
  virtual int64_t held_scratch_bytes() const = 0;

  // Takes the bytes of scratch_bytes() now, so that no call within the limits can fail for lack of memory.
  virtual void reserve_scratch(const ScratchLimits& limits) = 0;

#define OP(name, arguments) virtual void name arguments = 0;
#include "ops/ops.def"
#undef OP
};

}  // namespace parley

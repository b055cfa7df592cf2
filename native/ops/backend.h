// The small interface where the model meets a device. One implementation a device: cpu/, cuda/.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ops/types.h"

namespace parley {

class Backend {
 public:
  virtual ~Backend() = default;

  // Memory that ops read and write, at a multiple of kAlignment; what is in it is not defined. Throws Error if there is none left.
  virtual void* allocate(int64_t bytes) = 0;

  // bytes: as they were asked for.
  virtual void release(void* memory, int64_t bytes) noexcept = 0;

  // Copies from the host's memory into that of ops, between the ops that were called before and those that are called later. `from` may
  // change as soon as it returns.
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;

  // Copies from the memory of ops into the host's, behind all ops that were called before. The bytes are there when it returns.
  virtual void download(void* to, const void* from, int64_t bytes) = 0;

  // Returns when all ops that were called before are done. Where they are done when they return there is nothing to wait for.
  virtual void wait() {}

  // A number that grows as long as an op goes on beside the thread that called it. Any thread.
  virtual int64_t progress() const { return 0; }

  static constexpr int64_t kAlignment = 256;

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

  // Said before a step's ops: attention() will be called with these rows, and with rules that have the window and num_keys of `rule`. What a
  // backend plans by the rows it plans here, once for all layers, and keeps until the plan with this number is made anew.
  virtual void plan_attention(const AttentionRows& rows, HeadLayout heads, const AttentionRule& rule) = 0;

  // What a step of this shape is filled up to with rows that belong to nobody, so that few shapes come to record().
  virtual StepShape padded(const StepShape& shape) const { return shape; }

  // Runs `ops`, which calls ops and nothing else of this backend. With the same shape they are the same ops with the same arguments every
  // time, and only the numbers in their memory differ: a backend may repeat what it saw before without calling it.
  virtual void record(const StepShape&, const std::function<void()>& ops) { ops(); }

#define OP(name, arguments) virtual void name arguments = 0;
#include "ops/ops.def"
#undef OP
};

}  // namespace parley

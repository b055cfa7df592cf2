// What the ranks of a tensor-parallel model do together.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/range.h"
#include "ops/types.h"

namespace parley {

class Backend;

// Each rank has its own and calls the same methods in the same order with matrices of the same shape; a rank's matrices are in its
// backend's memory, and the calls are in line with its ops. When a call is done, nobody reads the rank's part any more.
class Collective {
 public:
  virtual ~Collective() = default;

#define METHOD(...) virtual __VA_ARGS__;
#include "ops/collective.def"
#undef METHOD
};

// Where the ranks of a model meet.
class MeetingPlace {
 public:
  virtual ~MeetingPlace() = default;

  // The rank's collective, which may outlive this. `backend`: the rank's own, which lives longer. Any thread.
  virtual std::unique_ptr<Collective> join(int64_t rank, Backend& backend) = 0;
};

}  // namespace parley

// What the ranks of a tensor-parallel model do together.
#pragma once

#include <string>

#include "base/range.h"
#include "ops/types.h"

namespace parley {

// Each rank has its own and calls the same methods in the same order with matrices of the same shape; a rank's matrices are in its
// backend's memory, and the calls are in line with its ops. When a call is done, nobody reads the rank's part any more.
class Collective {
 public:
  virtual ~Collective() = default;

  // out = the sum of all ranks' parts, or out += that sum (store, accumulate). It is added up in one order everywhere: all ranks get the
  // same bits.  out, part [T, n], which do not overlap
  virtual void all_reduce(Matrix<float> out, Matrix<const float> part, Epilogue epilogue) = 0;

  // Puts rows together of which every rank has some columns: out[t, columns[r]] = row first_row + t of rank r's part. Each rank may want
  // other rows. Ranks may have the same columns, if these are equal.  out [wanted rows, n], part [T, columns[rank].count]
  virtual void gather(Matrix<float> out, Matrix<const float> part, Span<const Range> columns, int64_t first_row) = 0;

  // Whether this rank waits for others. Any thread.
  virtual bool waiting() const = 0;

  // Ends what any rank waits for, now and from now on, with Error `why`. Any thread, of any rank's object.
  virtual void abort(const std::string& why) = 0;

  // Takes that back. No rank may be in a call.
  virtual void reset() = 0;
};

}  // namespace parley

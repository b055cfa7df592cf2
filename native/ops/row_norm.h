// Norms of whole rows by the ops that there are for them.
#pragma once

#include "ops/backend.h"

namespace parley {

// x [T, n]
inline void normalise(Backend& backend, Matrix<const float> x, Span<const RowNorm> norms) {
  for (const RowNorm& norm : norms) {
    const Matrix<float> out(norm.out.data, x.rows, x.cols, norm.out.stride);
    if (norm.kind == Norm::rms) {
      backend.rms_norm(out, x, norm.weight, x.cols, norm.eps);
    } else {
      backend.layer_norm(out, x, norm.weight, norm.bias, x.cols, norm.eps);
    }
  }
}

}  // namespace parley

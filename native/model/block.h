// What the blocks of the decoder and of the encoder share: workspace matrices, planned first and then cut from one arena, and the MLP.
#pragma once

#include <vector>

#include "base/arena.h"
#include "model/weights.h"

namespace parley {

// A workspace matrix and its shape.
struct MatrixPlan {
  Matrix<float>* matrix;
  int64_t rows;
  int64_t cols;
};

inline int64_t workspace_bytes(const std::vector<MatrixPlan>& plans) {
  int64_t bytes = 0;
  for (const MatrixPlan& plan : plans) {
    bytes = checked_add(bytes, checked_add(checked_mul(checked_mul(plan.rows, plan.cols), 4), Arena::kCacheLine));
  }
  return bytes;
}

// The arena must have workspace_bytes(plans).
inline void take_workspace(const std::vector<MatrixPlan>& plans, Arena& arena) {
  for (const MatrixPlan& plan : plans) {
    *plan.matrix = Matrix<float>(static_cast<float*>(arena.take(plan.rows * plan.cols * 4)), plan.rows, plan.cols);
  }
}

template <class T>
Span<const T> span(const std::vector<T>& list) {
  return {list.data(), static_cast<int64_t>(list.size())};
}

// input [T, H] -> hidden [T, F], the MLP's hidden layer; gate_up [T, 2 F] is scratch of a gated one.
void run_mlp(const ModelSpec& spec, Backend& backend, const LayerWeights& layer, Matrix<const float> input, Matrix<float> gate_up,
             Matrix<float> hidden);

}  // namespace parley

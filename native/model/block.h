// What the blocks of the decoder and of the encoder share: workspace matrices, planned first and then cut from one arena, and the MLP.
#pragma once

#include <type_traits>
#include <variant>
#include <vector>

#include "model/arena.h"
#include "model/weights.h"
#include "ops/collective.h"
#include "ops/backend.h"

namespace parley {

// The most that comes at a time, which decides how large a workspace is.
struct StackLimits {
  int64_t rows;        // tokens that go through a block together
  int64_t positions;   // tokens of the longest sequence
  int64_t sequences;   // that a step's rows belong to
  int64_t logit_rows;  // rows that are unembedded together
};

// A workspace matrix of a stack (decoder or encoder) and its shape. Names a member, so that a plan can be summed before there is a stack.
template <class Stack>
struct MatrixPlan {
  std::variant<Matrix<float> Stack::*, Matrix<int32_t> Stack::*, Output Stack::*> matrix;
  int64_t rows;
  int64_t cols;
  DType dtype = DType::float32;  // of an Output's numbers
};

template <class Stack>
int64_t planned_bytes(const std::vector<MatrixPlan<Stack>>& plans) {
  int64_t bytes = 0;
  for (const auto& plan : plans) {
    bytes = checked_add(bytes, checked_add(checked_mul(checked_mul(plan.rows, plan.cols), dtype_bytes(plan.dtype)), Arena::kAlignment));
  }
  return bytes;
}

// The arena must have planned_bytes(plans).
template <class Stack>
void take_workspace(Stack& stack, const std::vector<MatrixPlan<Stack>>& plans, Arena& arena) {
  for (const auto& plan : plans) {
    void* data = arena.take(plan.rows * plan.cols * dtype_bytes(plan.dtype));
    std::visit(
        [&](auto member) {
          auto& matrix = stack.*member;
          if constexpr (std::is_same_v<decltype(matrix), Output&>) {
            matrix = {data, plan.dtype, plan.rows, plan.cols};
          } else {
            matrix = {static_cast<decltype(matrix.data)>(data), plan.rows, plan.cols};
          }
        },
        plan.matrix);
  }
}

inline std::vector<float> downloaded(Backend& backend, Span<const float> numbers) {
  std::vector<float> list(static_cast<size_t>(numbers.size));
  backend.download(list.data(), numbers.data, numbers.size * static_cast<int64_t>(sizeof(float)));
  return list;
}

// A table of the workspace that ops read: fill(Matrix<float>) makes it in the host's memory.
template <class Fill>
void upload_table(Backend& backend, Matrix<float> table, const Fill& fill) {
  if (table.rows == 0) return;
  std::vector<float> numbers(static_cast<size_t>(table.rows * table.cols));
  fill(Matrix<float>(numbers.data(), table.rows, table.cols));
  backend.upload(table.data, numbers.data(), static_cast<int64_t>(numbers.size() * sizeof(float)));
}

template <class T>
Span<const T> span(const std::vector<T>& list) {
  return {list.data(), static_cast<int64_t>(list.size())};
}

// out += x
inline void add(Backend& backend, Matrix<float> out, Matrix<const float> x) { backend.sum(out, {&x, 1}, {}, Epilogue::accumulate); }

// out = x W^T + bias, then the epilogue, in a pass of its own.
inline void linear(Backend& backend, Matrix<float> out, Input x, const PackedWeight& weight, Span<const float> bias,
                   Epilogue epilogue) {
  const Product product{out, x, weight, bias, epilogue};
  backend.linear({&product, 1});
}

// What follows is summed over the ranks, of whom each has a summand, its `part`, which is scratch as large as `out`. With no collective the
// rank is alone, and no part is needed.

// out = rows of the embedding, of which the rank has those from first_token on. chosen: as in the op embed
void embed_tokens(Backend& backend, Collective* collective, Matrix<float> out, Matrix<float> part, const PackedWeight& table,
                  Span<const int32_t> tokens, Span<const float> chosen, int64_t first_token, float scale);

// out = x W^T + bias, or out += x W^T + bias (store, accumulate), and then norms of that. The ranks have other columns of x and W.
void project(Backend& backend, Collective* collective, Matrix<float> out, Matrix<float> part, Input x,
             const LinearWeights& weights, Epilogue epilogue, Span<const RowNorm> norms);

// What an MLP begins with: input [T, H] -> hidden [T, F], its hidden layer; or -> gate_up [T, 2 F] of a gated one, whose hidden layer
// Backend::gate makes of it.
Product mlp_up(const ModelSpec& spec, const LayerWeights& layer, Input input, Matrix<float> gate_up, Output hidden);

// The two together.
void run_mlp(const ModelSpec& spec, Backend& backend, const LayerWeights& layer, Input input, Matrix<float> gate_up, Output hidden);

}  // namespace parley

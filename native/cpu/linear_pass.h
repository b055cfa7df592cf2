// A pass of `linear` as threads share it: the inputs, which are laid out first, then the tasks of all products.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/arithmetic.h"
#include "cpu/number_type.h"
#include "cpu/scratch.h"
#include "ops/types.h"

namespace parley {

// A product as its kernel runs it. packed: where its input is laid out, if the plan wants that.
inline LinearCall linear_call(const Product& product, const LinearPlan& plan, const char* packed) {
  const PackedWeight& weight = product.weight;
  return {weight.data,
          number_type(weight.dtype),
          weight.rows,
          weight.cols,
          plan.packed_bytes > 0 ? static_cast<const void*>(packed) : product.x.floats().data,
          product.x.rows,
          plan.num_groups,
          plan.num_blocks,
          plan.piece_tasks,
          product.bias.data,
          product.out.floats().data,
          product.out.stride,
          static_cast<int32_t>(product.epilogue)};
}

inline int64_t num_linear_tasks(const LinearCall& call) { return call.num_blocks * ceil_div(call.rows, kPanelRows); }

class LinearPass {
 public:
  // products: at least one, with at least one token. Takes what their inputs need of `scratch`.
  LinearPass(const Kernels& kernels, Span<const Product> products, Scratch& scratch) : kernels_(kernels) {
    const NumberType dtype = number_type(products[0].weight.dtype);
    LinearPlan plans[kMaxProducts];
    int64_t offsets[kMaxProducts];
    int64_t bytes = 0;
    for (int64_t i = 0; i < products.size; ++i) {
      const Matrix<const float> x = products[i].x.floats();
      plans[i] = kernels.plan_linear(dtype, x.rows, x.cols);
      const auto is_this = [&](const Input& input) { return input.x.data == x.data && input.x.cols == x.cols; };
      Input* input = std::find_if(inputs_, inputs_ + num_inputs_, is_this);
      if (input == inputs_ + num_inputs_ && plans[i].packed_bytes > 0) {
        *input = {x, plans[i].num_groups, bytes, num_runs_};
        ++num_inputs_;
        num_runs_ += ceil_div(x.cols, kRunCols);
        bytes += ceil_div(plans[i].packed_bytes, kLineBytes) * kLineBytes;
      }
      offsets[i] = plans[i].packed_bytes > 0 ? input->offset : 0;
    }
    packed_ = scratch.reserve<char>(bytes);
    for (int64_t i = 0; i < products.size; ++i) {
      calls_[i] = linear_call(products[i], plans[i], packed_ + offsets[i]);
      if (i == 0 || calls_[i].out != calls_[i - 1].out) stacks_[num_stacks_++] = {calls_ + i, 0, 0, 0};
      Stack& stack = stacks_[num_stacks_ - 1];
      ++stack.num_calls;
      stack.num_blocks = std::max(stack.num_blocks, calls_[i].num_blocks);
      stack.cols += calls_[i].cols;
    }
    for (const Stack* stack = stacks_; stack < stacks_ + num_stacks_; ++stack) {
      for (int64_t i = 0; i < stack->num_calls; ++i) stack->calls[i].num_blocks = stack->num_blocks;
      multiplications_ += stack->num_tasks() * stack->task_multiplications();
    }
  }
  LinearPass(const LinearPass&) = delete;
  LinearPass& operator=(const LinearPass&) = delete;

  // The inputs are laid out in so many runs of columns, each of so many numbers.
  int64_t num_runs() const { return num_runs_; }
  int64_t run_numbers() const { return kRunCols * calls_[0].num_tokens; }

  void pack(int64_t first_run, int64_t last_run) const {
    for (const Input* input = inputs_; input < inputs_ + num_inputs_; ++input) {
      const Matrix<const float>& x = input->x;
      const int64_t first_col = std::max<int64_t>(first_run - input->first_run, 0) * kRunCols;
      const int64_t last_col = std::min((last_run - input->first_run) * kRunCols, x.cols);
      if (first_col >= last_col) continue;
      kernels_.pack_tokens(packed_ + input->offset, calls_[0].dtype, x.data, x.stride, x.rows, input->num_groups, x.cols, first_col, last_col);
    }
  }

  int64_t multiplications() const { return multiplications_; }

  // How many a thread does before it looks for more.
  int64_t piece() const {
    int64_t largest = 0;
    for (const Stack* stack = stacks_; stack < stacks_ + num_stacks_; ++stack) largest = std::max(largest, stack->task_multiplications());
    return calls_[0].piece_tasks * largest;  // the same for all, as the number of tokens is
  }

  // The multiplications [first, last), in the order of the products. Those with one `out` are cut in the same places, so that what each
  // adds to is there.
  void multiply(int64_t first, int64_t last, float* thread_scratch) const {
    for (const Stack* stack = stacks_; stack < stacks_ + num_stacks_; ++stack) {
      const int64_t first_task = stack->task_at(first), last_task = stack->task_at(last);
      for (int64_t i = 0; first_task < last_task && i < stack->num_calls; ++i) {
        kernels_.linear(stack->calls[i], first_task, last_task, thread_scratch);
      }
      first -= stack->num_tasks() * stack->task_multiplications();
      last -= stack->num_tasks() * stack->task_multiplications();
    }
  }

 private:
  static constexpr int64_t kRunCols = 64;  // pack_tokens begins at a multiple
  static constexpr int64_t kLineBytes = 64;
  static_assert(kPassCols % kRunCols == 0, "ScratchLimits::pass_cols has room for inputs of whole lines");

  struct Input {
    Matrix<const float> x;
    int64_t num_groups;
    int64_t offset;  // in packed_
    int64_t first_run;
  };

  // Products with one `out`; a task of theirs is one of each.
  struct Stack {
    LinearCall* calls;
    int64_t num_calls;
    int64_t num_blocks;  // the most that one of them wants
    int64_t cols;        // of all

    int64_t num_tasks() const { return num_linear_tasks(*calls); }
    int64_t task_multiplications() const { return ceil_div(calls->num_tokens, num_blocks) * kPanelRows * cols; }
    int64_t task_at(int64_t multiplication) const {
      return std::clamp<int64_t>(ceil_div(std::max<int64_t>(multiplication, 0), task_multiplications()), 0, num_tasks());
    }
  };

  const Kernels& kernels_;
  char* packed_;
  Input inputs_[kMaxProducts];
  LinearCall calls_[kMaxProducts];
  Stack stacks_[kMaxProducts];
  int64_t num_inputs_ = 0;
  int64_t num_runs_ = 0;
  int64_t num_stacks_ = 0;
  int64_t multiplications_ = 0;
};

}  // namespace parley

#include "cuda/linear.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "cuda/elementwise.h"
#include "cuda/hopper.h"

namespace parley {
namespace cuda {
namespace {

// Of fewer tokens the weights' traffic is what counts, and our own kernels read them at the memory's speed. Microseconds of the two passes of a layer on
// an H200, ours and the library's: of 64 tokens 125 and 131 (Pythia-6.9B), 254 and 256 (GPT-NeoX-20B), 48 and 50 (1.4B), 30 and 27 (410M); of 128
// tokens 161 and 142, 325 and 282, 65 and 54, 45 and 29.
constexpr int64_t kFewestLibraryTokens = 65;

// Kernels count rows, columns and 16-byte pieces of a matrix in 32 bits.
LinearCall make_call(const Product& product) {
  const auto& [out, x, weight, bias, epilogue] = product;
  const int64_t tokens = x.rows;
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  check(weight.rows <= kMost && weight.cols <= kMost - kUnitCols && tokens <= kMost &&
            checked_mul(weight.rows, row_pitch(weight.cols)) / 8 <= kMost && checked_mul(tokens, row_pitch(weight.cols)) / 8 <= kMost,
        "linear: ", tokens, " tokens with a weight of ", weight.rows, " x ", weight.cols, " are too many numbers");
  check(x.dtype == DType::float32 || (x.dtype == weight.dtype && x.stride == row_pitch(x.cols) && x.cols == x.stride), "linear: rows of ",
        dtype_name(x.dtype), " with ", dtype_name(weight.dtype), " weights, ", x.stride, " numbers apart");
  check(out.dtype == DType::float32 || (out.dtype == weight.dtype && epilogue != Epilogue::store && epilogue != Epilogue::accumulate),
        "linear: results of ", dtype_name(out.dtype), " with ", dtype_name(weight.dtype), " weights");
  LinearCall call{};
  call.dtype = weight.dtype;
  call.rows = static_cast<int32_t>(weight.rows);
  call.cols = static_cast<int32_t>(weight.cols);
  call.pitch = static_cast<int32_t>(row_pitch(weight.cols));
  call.tokens = static_cast<int32_t>(tokens);
  call.num_slices = static_cast<int32_t>(num_slices(weight));
  call.weight = weight.data;
  call.x = x.data;
  call.x_rounded = x.dtype != DType::float32;
  call.x_stride = x.stride;
  call.bias = bias.data;
  call.out = out.data;
  call.rounds_out = out.dtype != DType::float32;
  call.out_stride = out.stride;
  call.epilogue = epilogue;
  return call;
}

int64_t rounded_bytes(int64_t rows, int64_t cols) { return packed_weight_bytes(rows, cols, DType::float16); }

}  // namespace

Linear::Linear(cudaStream_t stream, int64_t num_multiprocessors, bool deterministic)
    : stream_(stream), num_multiprocessors_(num_multiprocessors), hopper_(runs_hopper_kernels()), library_(deterministic ? nullptr : CublasLt::open()) {
  const int64_t blocks = max_split_blocks(num_multiprocessors);
  partials_.reserve<float>(std::max(blocks * kMaxTileNumbers, hopper_ ? hopper_part_numbers(num_multiprocessors) : 0));
  check(cudaMemsetAsync(arrivals_.reserve<unsigned>(blocks), 0, static_cast<size_t>(blocks) * sizeof(unsigned), stream),
        "counters of linear");
  if (library_) library_workspace_.reserve<char>(CublasLt::kWorkspaceBytes);
}

// Of inputs that are float32.
int64_t Linear::rounded_scratch(const ScratchLimits& limits) const {
  const int64_t rounded = std::max(rounded_bytes(limits.rows, limits.cols),
                             rounded_bytes(limits.expert_rows, std::max(limits.expert_hidden, limits.expert_size)));
  return hopper_ ? std::max(rounded, rounded_bytes(std::min(limits.rows, kMostHopperTokens), limits.pass_cols)) : rounded;
}

// Numbers that an activation makes 16-bit ones of.
int64_t Linear::sums_scratch(const ScratchLimits& limits) const { return library_ ? checked_mul(limits.rows, limits.activated_cols) : 0; }

int64_t Linear::scratch_bytes(const ScratchLimits& limits) const {
  const int64_t bytes = checked_add(rounded_scratch(limits), checked_mul(sums_scratch(limits), sizeof(float)));
  return checked_add(bytes, partials_.bytes() + arrivals_.bytes() + library_workspace_.bytes());
}

void Linear::reserve_scratch(const ScratchLimits& limits) {
  rounded_.reserve<char>(rounded_scratch(limits));
  sums_.reserve<float>(sums_scratch(limits));
}

const void* Linear::rounded(Matrix<const float> x, DType dtype) {
  void* out = rounded_.reserve<char>(rounded_bytes(x.rows, x.cols));
  round_rows(stream_, out, dtype, x);
  return out;
}

int64_t Linear::few_tokens() const { return !hopper_ ? kFewTokens : library_ ? kFewestLibraryTokens - 1 : kMostHopperTokens; }

void Linear::run(Span<const Product> products) {
  LinearCall calls[kMaxProducts];
  int64_t num_calls = 0;
  Input last_x;
  const void* last_rounded = nullptr;
  for (const Product& product : products) {
    const Input& x = product.x;
    const PackedWeight& weight = product.weight;
    if (x.rows == 0 || weight.rows == 0) continue;
    LinearCall call = make_call(product);
    if (weight.dtype == DType::float32) {
      linear_float32(stream_, call, OneWeight(), ceil_div(x.rows, kFloat32Tokens));
    } else if (x.rows <= few_tokens()) {
      calls[num_calls++] = call;
    } else {
      if (!call.x_rounded) {
        if (x.data != last_x.data || x.cols != last_x.cols) last_rounded = rounded(x.floats(), weight.dtype);
        last_x = x;
        call.x = last_rounded;
      }
      run_many(product, call);
    }
  }
  if (num_calls == 0) return;
  if (hopper_) {
    run_hopper({calls, num_calls});
  } else {
    linear_few(stream_, {calls, num_calls}, num_multiprocessors_);
  }
}

void Linear::run_hopper(Span<LinearCall> calls) {
  const HopperScratch scratch{partials_.reserve<float4>(0), partials_.bytes() / static_cast<int64_t>(sizeof(float))};
  for (int64_t begin = 0, end; begin < calls.size; begin = end) {
    const LinearCall& first = calls[begin];
    end = begin + 1;
    while (end < calls.size && calls[end].dtype == first.dtype && calls[end].tokens == first.tokens) ++end;
    const Span<LinearCall> pass{calls.data + begin, end - begin};
    round_inputs(pass);
    linear_hopper_few(stream_, pass, scratch, cuts_, num_multiprocessors_);
  }
}

// Each x that is float32, once.
void Linear::round_inputs(Span<LinearCall> calls) {
  const void* inputs[kMaxProducts] = {};
  int64_t bytes = 0;
  const auto place = [&](int64_t i) {
    int64_t first = 0;
    while (inputs[first] != inputs[i] || calls[first].cols != calls[i].cols) ++first;
    return first;
  };
  for (int64_t i = 0; i < calls.size; ++i) {
    inputs[i] = calls[i].x;
    if (!calls[i].x_rounded && place(i) == i) bytes += rounded_bytes(calls[i].tokens, calls[i].cols);
  }
  char* next = rounded_.reserve<char>(bytes);
  if (bytes == 0) return;
  for (int64_t i = 0; i < calls.size; ++i) {
    LinearCall& call = calls[i];
    if (call.x_rounded) continue;
    const int64_t first = place(i);
    if (first == i) {
      round_rows(stream_, next, call.dtype, {static_cast<const float*>(call.x), call.tokens, call.cols, call.x_stride});
      call.x = next;
      next += rounded_bytes(call.tokens, call.cols);
    } else {
      call.x = calls[first].x;
    }
  }
}

// x of the call is rounded. The library has sums in float32 first, where an activation comes behind them.
void Linear::run_many(const Product& product, const LinearCall& call) {
  const auto& [out, x, weight, bias, epilogue] = product;
  if (library_ && x.rows >= kFewestLibraryTokens) {
    const bool activates = epilogue != Epilogue::store && epilogue != Epilogue::accumulate;
    const Matrix<float> sums = out.dtype == DType::float32 ? out.floats() : Matrix<float>(sums_.reserve<float>(out.rows * out.cols), out.rows, out.cols);
    if (library_->multiply(stream_, sums, call.x, weight, bias, epilogue == Epilogue::accumulate, library_workspace_.reserve<char>(0))) {
      if (activates) finish(stream_, out, sums, epilogue);
      return;
    }
  }
  if (hopper_) return linear_hopper_many(stream_, call, partials_.reserve<float4>(0), num_multiprocessors_);
  const LinearTile tile = plan_linear(weight.rows, x.rows, call.num_slices, num_multiprocessors_);
  linear_tile(stream_, call, OneWeight(), ceil_div(x.rows, tile.tokens), tile, partials_.reserve<float4>(0), arrivals_.reserve<unsigned>(0));
}

int64_t Linear::expert_tile_rows(DType dtype, int64_t tokens) {
  return dtype == DType::float32 ? kFloat32Tokens : tokens <= kFewTokens ? kFewTokens : tile_tokens(tokens);
}

void Linear::run_experts(Matrix<float> out, Matrix<const float> x, const PackedWeight& shape, const ExpertWeightList& experts,
                         int64_t tokens, int64_t max_tiles) {
  LinearCall call = make_call({out, x, shape, {}, Epilogue::store});
  call.tokens = static_cast<int32_t>(tokens);
  if (shape.dtype == DType::float32) {
    linear_float32(stream_, call, experts, max_tiles);
  } else if (tokens <= kFewTokens) {
    linear_few(stream_, call, experts, max_tiles, num_multiprocessors_);
  } else {
    call.x = rounded(x, shape.dtype);
    const int64_t tile_rows_of_x = tile_tokens(tokens);
    linear_tile(stream_, call, experts, max_tiles, {tile_rows(tile_rows_of_x), tile_rows_of_x, 1}, nullptr, nullptr);
  }
}

}  // namespace cuda
}  // namespace parley

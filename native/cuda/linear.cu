#include "cuda/linear.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "cuda/elementwise.h"

namespace parley {
namespace cuda {
namespace {

// Of fewer tokens the weights' traffic is what counts, and linear_tile reads them at the memory's speed.
constexpr int64_t kFewestLibraryTokens = 65;

// Kernels count rows, columns and 16-byte pieces of a matrix in 32 bits.
LinearCall make_call(Matrix<float> out, int64_t tokens, const PackedWeight& weight, Span<const float> bias, Epilogue epilogue) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  check(weight.rows <= kMost && weight.cols <= kMost - kUnitCols && tokens <= kMost &&
            checked_mul(weight.rows, row_pitch(weight.cols)) / 8 <= kMost && checked_mul(tokens, row_pitch(weight.cols)) / 8 <= kMost,
        "linear: ", tokens, " tokens with a weight of ", weight.rows, " x ", weight.cols, " are too many numbers");
  LinearCall call{};
  call.dtype = weight.dtype;
  call.rows = static_cast<int32_t>(weight.rows);
  call.cols = static_cast<int32_t>(weight.cols);
  call.pitch = static_cast<int32_t>(row_pitch(weight.cols));
  call.tokens = static_cast<int32_t>(tokens);
  call.num_slices = static_cast<int32_t>(num_slices(weight));
  call.weight = weight.data;
  call.bias = bias.data;
  call.out = out.data;
  call.out_stride = out.stride;
  call.epilogue = epilogue;
  return call;
}

int64_t rounded_bytes(int64_t rows, int64_t cols) { return packed_weight_bytes(rows, cols, DType::float16); }

}  // namespace

Linear::Linear(cudaStream_t stream, int64_t num_multiprocessors, bool deterministic)
    : stream_(stream), num_multiprocessors_(num_multiprocessors), library_(deterministic ? nullptr : CublasLt::open()) {
  const int64_t blocks = max_split_blocks(num_multiprocessors);
  partials_.reserve<float>(blocks * kMaxTileNumbers);
  check(cudaMemsetAsync(arrivals_.reserve<unsigned>(blocks), 0, static_cast<size_t>(blocks) * sizeof(unsigned), stream),
        "counters of linear");
  if (library_) library_workspace_.reserve<char>(CublasLt::kWorkspaceBytes);
}

int64_t Linear::scratch_bytes(const ScratchLimits& limits) const {
  const int64_t rounded = std::max(rounded_bytes(limits.rows, limits.cols),
                                   rounded_bytes(limits.expert_rows, std::max(limits.expert_hidden, limits.expert_size)));
  return checked_add(rounded, partials_.bytes() + arrivals_.bytes() + library_workspace_.bytes());
}

void Linear::reserve_scratch(const ScratchLimits& limits) {
  rounded_.reserve<char>(scratch_bytes(limits) - partials_.bytes() - arrivals_.bytes() - library_workspace_.bytes());
}

const void* Linear::rounded(Matrix<const float> x, DType dtype) {
  void* out = rounded_.reserve<char>(rounded_bytes(x.rows, x.cols));
  round_rows(stream_, out, dtype, x);
  return out;
}

void Linear::run(Span<const Product> products) {
  LinearCall calls[kMaxProducts];
  int64_t num_calls = 0;
  Matrix<const float> last_x;
  const void* last_rounded = nullptr;
  for (const Product& product : products) {
    const auto& [out, x, weight, bias, epilogue] = product;
    if (x.rows == 0 || weight.rows == 0) continue;
    LinearCall call = make_call(out, x.rows, weight, bias, epilogue);
    call.x = x.data;
    call.x_stride = x.stride;
    if (weight.dtype == DType::float32) {
      linear_float32(stream_, call, OneWeight(), ceil_div(x.rows, kFloat32Tokens));
    } else if (x.rows <= kFewTokens) {
      calls[num_calls++] = call;
    } else {
      if (x.data != last_x.data || x.cols != last_x.cols) last_rounded = rounded(x, weight.dtype);
      last_x = x;
      call.x = last_rounded;
      run_many(product, call);
    }
  }
  if (num_calls > 0) linear_few(stream_, {calls, num_calls}, num_multiprocessors_);
}

// x of the call is rounded.
void Linear::run_many(const Product& product, const LinearCall& call) {
  const auto& [out, x, weight, bias, epilogue] = product;
  if (library_ && x.rows >= kFewestLibraryTokens &&
      library_->multiply(stream_, out, call.x, weight, bias, epilogue == Epilogue::accumulate, library_workspace_.reserve<char>(0))) {
    if (epilogue == Epilogue::store || epilogue == Epilogue::accumulate) return;
    finish(stream_, out, epilogue);
    return;
  }
  const LinearTile tile = plan_linear(weight.rows, x.rows, call.num_slices, num_multiprocessors_);
  linear_tile(stream_, call, OneWeight(), ceil_div(x.rows, tile.tokens), tile, partials_.reserve<float4>(0), arrivals_.reserve<unsigned>(0));
}

int64_t Linear::expert_tile_rows(DType dtype, int64_t tokens) {
  return dtype == DType::float32 ? kFloat32Tokens : tokens <= kFewTokens ? kFewTokens : tile_tokens(tokens);
}

void Linear::run_experts(Matrix<float> out, Matrix<const float> x, const PackedWeight& shape, const ExpertWeightList& experts,
                         int64_t tokens, int64_t max_tiles) {
  LinearCall call = make_call(out, x.rows, shape, {}, Epilogue::store);
  call.tokens = static_cast<int32_t>(tokens);
  call.x = x.data;
  call.x_stride = x.stride;
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

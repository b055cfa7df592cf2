// Attention of tiles of up to 16 query pairs: a decode step's rows, each with the query heads that share a key/value head. Eight warps
// share out the keys of a step and then its dims, so that keys and values are read once. A step is long, for a lone tile waits for memory once
// a step, but leaves room for two or three blocks on a multiprocessor of compute capability 9.0: each reads while others compute.
#include "cuda/attention_tile.h"

namespace parley {
namespace cuda {
namespace {

template <class Number, int kHeadDim>
void start(const AttentionCall& call, int64_t blocks, cudaStream_t stream) {
  using Tiles = Tile<Number, kHeadDim, 1, 8, kHeadDim <= 64 ? 4 : 2, 1>;
  static_assert(Tiles::kPairs == kNarrowPairs, "");
  const dim3 grid(static_cast<unsigned>(call.num_kv_heads), static_cast<unsigned>(blocks));
  constexpr int kBlocks = kHeadDim > 64 && kHeadDim <= 128 ? 3 : 2;
  launch(attend_tiles<Tiles, kBlocks>, grid, Tiles::kThreads, Tiles::kSharedBytes, stream, call, false);
}

}  // namespace

void attend_narrow(const AttentionCall& call, DType dtype, int64_t blocks, cudaStream_t stream) {
  with_tile_type(dtype, call.head_dim, [&](auto* number, auto head_dim) {
    start<std::remove_pointer_t<decltype(number)>, decltype(head_dim)::value>(call, blocks, stream);
  });
}

}  // namespace cuda
}  // namespace parley

// Attention of tiles of up to 16 query pairs: a decode step's rows, each with the query heads that share a key/value head. Four warps
// share out a block's keys and then its dims, so that keys and values are read once; two blocks of keys and values are under way.
#include "cuda/attention_tile.h"

namespace parley {
namespace cuda {
namespace {

template <class Number, int kHeadDim>
void start(const AttentionCall& call, int64_t blocks, cudaStream_t stream) {
  constexpr int kStages = 2;
  using Tiles = Tile<Number, kHeadDim, 1, 4, kStages>;
  static_assert(Tiles::kPairs == kNarrowPairs, "");
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(call.num_kv_heads));
  launch(attend_tiles<Number, kHeadDim, 1, 4, kStages, 3>, grid, Tiles::kThreads, Tiles::kSharedBytes, stream, call, false);
}

}  // namespace

void attend_narrow(const AttentionCall& call, DType dtype, int64_t blocks, cudaStream_t stream) {
  with_tile_type(dtype, call.head_dim, [&](auto* number, auto head_dim) {
    start<std::remove_pointer_t<decltype(number)>, decltype(head_dim)::value>(call, blocks, stream);
  });
}

}  // namespace cuda
}  // namespace parley

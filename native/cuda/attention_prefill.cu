// Attention of tiles of more than 16 query pairs: a prompt's rows. A warp has 16 pairs of its own; with heads of more than 128 dims, whose sums
// fill twice the registers, two warps share 16 pairs. Two blocks of keys and of values are under way where there is room.
#include "cuda/attention_tile.h"

namespace parley {
namespace cuda {
namespace {

template <class Number, int kHeadDim>
void start(const AttentionCall& call, int64_t blocks, cudaStream_t stream) {
  constexpr int kColumnWarps = kHeadDim <= 128 ? 1 : 2;
  using Tiles = Tile<Number, kHeadDim, 4, kColumnWarps, 1, kHeadDim <= 192 ? 2 : 1>;
  static_assert(Tiles::kPairs == kWidePairs, "");
  const dim3 grid(static_cast<unsigned>(call.num_kv_heads), static_cast<unsigned>(blocks));
  launch(attend_tiles<Tiles, 2 / kColumnWarps>, grid, Tiles::kThreads, Tiles::kSharedBytes, stream, call, true);
}

}  // namespace

void attend_wide(const AttentionCall& call, DType dtype, int64_t blocks, cudaStream_t stream) {
  with_tile_type(dtype, call.head_dim, [&](auto* number, auto head_dim) {
    start<std::remove_pointer_t<decltype(number)>, decltype(head_dim)::value>(call, blocks, stream);
  });
}

}  // namespace cuda
}  // namespace parley

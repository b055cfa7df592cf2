// Attention of tiles of more than 16 query pairs: a prompt's rows. Eight warps; with heads of up to 128 dims each has 16 pairs of its own,
// with wider ones, whose sums fill twice the registers, two warps share 16 pairs. One block of keys and one of values are under way.
#include "cuda/attention_tile.h"

namespace parley {
namespace cuda {
namespace {

template <class Number, int kHeadDim>
void start(const AttentionCall& call, int64_t blocks, cudaStream_t stream) {
  constexpr int kColumnWarps = kHeadDim <= 128 ? 1 : 2;
  constexpr int kRowWarps = 8 / kColumnWarps;
  using Tiles = Tile<Number, kHeadDim, kRowWarps, kColumnWarps, 1>;
  static_assert(Tiles::kPairs == wide_pairs(kHeadDim), "");
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(call.num_kv_heads));
  launch(attend_tiles<Number, kHeadDim, kRowWarps, kColumnWarps, 1, 1>, grid, Tiles::kThreads, Tiles::kSharedBytes, stream, call, true);
}

}  // namespace

void attend_wide(const AttentionCall& call, DType dtype, int64_t blocks, cudaStream_t stream) {
  with_tile_type(dtype, call.head_dim, [&](auto* number, auto head_dim) {
    start<std::remove_pointer_t<decltype(number)>, decltype(head_dim)::value>(call, blocks, stream);
  });
}

}  // namespace cuda
}  // namespace parley

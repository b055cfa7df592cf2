#include "cuda/linear_hopper_plan.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace parley {
namespace cuda {
namespace {

// What a cut costs, in bytes of weights that a block could read meanwhile. Measured on an H200: tokens come from the cache and cost a quarter of
// their bytes; blocks that are done leave their share of the memory's rate to the others, up to a ninth for each; a number that is left takes the time of
// 24 bytes, and the kernel that adds them 3 us besides. Of all cuts, those it chooses take 0.8% longer than the best one, on average over four models.
int64_t cost(Span<const ProductShape> shapes, const PassCut& cut, int64_t tile_tokens, int64_t num_blocks) {
  constexpr int64_t kFinishBytes = 100 * 1024, kBytesPerLeftNumber = 24;
  int64_t sum = 0, most = 0, most_left = 0;
  for (int32_t block = 0; block < num_blocks; ++block) {
    int64_t bytes = 0, left = 0, first_extra = 0;  // left: tiles
    for (int64_t i = 0; i < shapes.size; ++i) {
      const ProductShape& shape = shapes[i];
      const int64_t tile_grains = shape.num_slices / std::min(cut.grain, shape.num_slices);
      const int64_t grains = ceil_div(shape.rows, cut.rows) * tile_grains;
      const Shares shares = Shares::of(grains, num_blocks, first_extra);
      first_extra = (first_extra + grains) % num_blocks;
      const int64_t begin = shares.begin(block), end = shares.begin(block + 1);
      if (begin == end) continue;
      bytes += (end - begin) * (cut.rows + tile_tokens / 4) * shape.pitch * 2 / tile_grains;
      const bool in_chain = shape.adds || (i + 1 < shapes.size && shapes[i + 1].adds);
      const int64_t tiles = ceil_div(end, tile_grains) - begin / tile_grains;
      const int64_t whole_tiles = std::max<int64_t>(0, end / tile_grains - ceil_div(begin, tile_grains));
      left += in_chain ? tiles : tiles - whole_tiles;
    }
    sum += bytes;
    most = std::max(most, bytes);
    most_left = std::max(most_left, left);
  }
  const int64_t finish = most_left > 0 ? kFinishBytes + most_left * cut.rows * tile_tokens * kBytesPerLeftNumber : 0;
  return std::max(sum / num_blocks, most * 9 / 10) + finish;
}

PassCut best_cut(Span<const ProductShape> shapes, int64_t tile_tokens, int64_t num_blocks) {
  PassCut best{};
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const int64_t rows : {2 * kLowTileRows, kLowTileRows}) {
    if (rows == kLowTileRows && tile_tokens > kMostLowTileTokens) break;
    for (int64_t grain = kNumSlices; grain > 0; grain /= 2) {
      const int64_t bytes = cost(shapes, {rows, grain}, tile_tokens, num_blocks);
      if (bytes < least) best = {rows, grain}, least = bytes;
    }
  }
  return best;
}

int32_t log2_of(int64_t power) {
  int32_t log = 0;
  while (int64_t{1} << log < power) ++log;
  return log;
}

}  // namespace

PassCut PassCuts::of(Span<const ProductShape> shapes, int64_t tile_tokens, int64_t num_blocks) {
  std::vector<int64_t> key{tile_tokens, num_blocks};
  for (const ProductShape& shape : shapes) key.insert(key.end(), {shape.rows, shape.pitch, shape.num_slices, shape.adds});
  const auto [found, is_new] = known_.try_emplace(std::move(key));
  if (is_new) found->second = best_cut(shapes, tile_tokens, num_blocks);
  return found->second;
}

PassPlan plan_pass(Span<const ProductShape> shapes, const PassCut& cut, int64_t num_blocks, int64_t most_parts) {
  PassPlan plan;
  int64_t parts = 0, first_extra = 0;
  for (int64_t begin = 0; begin < shapes.size; begin = plan.num_products) {
    int64_t end = begin + 1;
    while (end < shapes.size && shapes[end].adds) ++end;
    const auto tiles_of = [&](int64_t i) { return ceil_div(shapes[i].rows, cut.rows); };
    const auto parts_of = [&](int64_t i) { return (end - begin > 1 ? tiles_of(i) : num_blocks) * shapes[i].num_slices; };
    int64_t needed = parts;
    for (int64_t i = begin; i < end; ++i) needed += parts_of(i);
    // What finds no room begins the next pass. A chain that never does is a pass for each product.
    const bool is_cut = needed > most_parts;
    if (is_cut && begin > 0) break;
    if (is_cut) end = begin + 1;
    for (int64_t i = begin; i < end; ++i) {
      ProductCut& product = plan.products[i];
      product.num_units = static_cast<int32_t>(shapes[i].pitch / kUnitCols);
      product.log_slices = log2_of(shapes[i].num_slices);
      product.log_grain = std::min(log2_of(cut.grain), product.log_slices);
      const int64_t grains = tiles_of(i) << (product.log_slices - product.log_grain);
      product.shares = Shares::of(grains, num_blocks, first_extra);
      first_extra = (first_extra + grains) % num_blocks;
      product.first_part = static_cast<int32_t>(parts);
      parts += parts_of(i);
      product.chain_first = static_cast<int32_t>(begin);
      product.chain_end = static_cast<int32_t>(end);
      plan.most_tiles = std::max(plan.most_tiles, tiles_of(i));
      plan.leaves_parts |= product.in_chain() || product.log_grain < product.log_slices;
    }
    plan.num_products = end;
    if (is_cut) break;
  }
  return plan;
}

}  // namespace cuda
}  // namespace parley

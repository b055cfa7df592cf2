// How a pass of few tokens is dealt out to blocks on compute capability 9.0 (linear_hopper_few.cu). Plain arithmetic: tests run it without a GPU.
//
// Of a product, the items of work are the slices of its tiles, numbered tile after tile. They are dealt out as runs of neighbours (Shares), one by
// one or in grains of 2, 4 or all slices of a tile. A block adds as much of a tile's tree (linear_plan.h) as is its own. Where others have slices of
// the tile too, or the product behind has the same `out`, each leaves the nodes that it has as parts, and a second kernel adds these.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/tensor.h"
#include "cuda/linear_plan.h"

namespace parley {
namespace cuda {

constexpr int64_t kLowTileRows = 64;  // of one warpgroup; a tile of two has twice as many
constexpr int64_t kMostLowTileTokens = 64;  // of a low tile: 128 would need more registers than a thread has

// How a product is dealt out, and whose and where its parts are.
struct ProductCut {
  int32_t num_units;
  int32_t log_slices;
  int32_t log_grain;
  Shares shares;  // of the grains
  int32_t first_part;
  int32_t chain_first;  // products of the pass from here until chain_end have one `out`
  int32_t chain_end;

  // With others: all tiles are left as parts.
  constexpr bool in_chain() const { return chain_end - chain_first > 1; }

  constexpr int num_slices() const { return 1 << log_slices; }
  constexpr int slice_begin(int slice) const { return slice * num_units >> log_slices; }  // its first unit

  constexpr int begin(int block) const { return shares.begin(block) << log_grain; }  // the first item of a block
  constexpr int block_of(int item) const { return shares.block_of(item >> log_grain); }

  // The part of a tile's slice 0; those of its other slices are behind it. A node's part is that of its first slice. Of a product by itself, only
  // the last of a block's tiles can go on in another block, so that each block has the parts of one tile.
  constexpr int part_of(int tile) const { return first_part + ((in_chain() ? tile : block_of(tile << log_slices)) << log_slices); }

  // Bit s: slice s of the tile is the first of another block than slice s - 1.
  constexpr unsigned cuts(int tile) const {
    const int first = tile << log_slices;
    unsigned bits = 0;
    for (int block = block_of(first) + 1;; ++block) {
      const int slice = begin(block) - first;
      if (slice >= num_slices()) return bits;
      bits |= 1u << slice;
    }
  }

  // Slices of the largest node that begins with `slice` and ends with slice `end` at the latest.
  constexpr int node_width(int slice, int end) const {
    int width = slice == 0 ? num_slices() : slice & -slice;
    while (slice + width > end) width /= 2;
    return width;
  }

  // Bit s: a block leaves the node that begins with slice s of the tile: those with the widths of node_width(). A node and the one before it that has
  // its parent are left if one block has not both.
  constexpr unsigned left_nodes(int tile) const {
    const unsigned first_of_block = cuts(tile);
    unsigned bits = 1;
    for (int width = 1; width < kNumSlices; width *= 2) {
      for (int s = width; s < kNumSlices; s += 2 * width) {
        if (first_of_block >> (s - width + 1) & ((1u << (2 * width - 1)) - 1)) bits |= 1u << s;
      }
    }
    return bits & ((1u << num_slices()) - 1);
  }
};

// Of a product in a pass.
struct ProductShape {
  int64_t rows;
  int64_t pitch;
  int64_t num_slices;
  bool adds;  // to the `out` of the one before
};

// Rows of a tile, and slices of a grain: at most, for products with fewer slices.
struct PassCut {
  int64_t rows;
  int64_t grain;
};

// The cuts of passes that came before; to find one takes the host 30 to 40 us.
class PassCuts {
 public:
  // The one that is expected to take the least time.
  PassCut of(Span<const ProductShape> shapes, int64_t tile_tokens, int64_t num_blocks);

 private:
  std::map<std::vector<int64_t>, PassCut> known_;
};

// Products that one kernel computes, and one behind it if there are parts.
struct PassPlan {
  int64_t num_products = 0;  // so many of the shapes; the others are for a pass behind this one
  ProductCut products[kMaxProducts] = {};
  int64_t most_tiles = 0;  // of a product
  bool leaves_parts = false;
};

// The pass with as many of the shapes, the first ones, as have room for their parts: at least the first, which needs num_blocks * kNumSlices at most.
PassPlan plan_pass(Span<const ProductShape> shapes, const PassCut& cut, int64_t num_blocks, int64_t most_parts);

}  // namespace cuda
}  // namespace parley

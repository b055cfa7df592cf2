// linear: against float64 sums of the rounded inputs, and the same bits for a token whatever stands beside it and whichever kernel runs.
#include "cuda/linear.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <vector>

#include "weights.h"

namespace {

using namespace parley;
using namespace parley::cuda;

double activation(double y, Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::gelu: return 0.5 * y * std::erfc(-y / std::sqrt(2.0));
    case Epilogue::gelu_tanh: return 0.5 * y * (1 + std::tanh(std::sqrt(2 / M_PI) * (y + 0.044715 * y * y * y)));
    case Epilogue::relu: return y > 0 ? y : 0;
    case Epilogue::silu: return y / (1 + std::exp(-y));
    default: return y;
  }
}

// out [tokens, rows] and x [tokens, cols] with gaps of their own behind every row.
void compare(Linear& linear, const Weight& weight, int64_t tokens, Epilogue epilogue, bool with_bias, int64_t x_gap, int64_t out_gap) {
  const int64_t x_stride = weight.cols + x_gap, out_stride = weight.rows + out_gap;
  Both<float> x(normals(tokens * x_stride));
  Both<float> bias(normals(with_bias ? weight.rows : 0));
  std::vector<float> before(static_cast<size_t>(tokens * out_stride), -7.0f);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t o = 0; o < weight.rows; ++o) {
      before[static_cast<size_t>(t * out_stride + o)] = epilogue == Epilogue::accumulate ? normal() : NAN;
    }
  }
  Both<float> out(before);
  const Product product{{out.device, tokens, weight.rows, out_stride}, {x.device, tokens, weight.cols, x_stride}, weight.view(),
                        {bias.device, static_cast<int64_t>(bias.host.size())}, epilogue};
  linear.run({&product, 1});
  out.read();
  const double epsilon = std::pow(2.0, -24);
  double worst = 0;
  bool gaps = true;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t o = 0; o < weight.rows; ++o) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < weight.cols; ++k) {
        const double product =
            double{rounded(x.host[static_cast<size_t>(t * x_stride + k)], weight.dtype)} * weight.numbers[static_cast<size_t>(o * weight.cols + k)];
        sum += product;
        size += std::fabs(product);
      }
      const double old = epilogue == Epilogue::accumulate ? before[static_cast<size_t>(t * out_stride + o)] : 0;
      const double b = with_bias ? bias.host[static_cast<size_t>(o)] : 0;
      const double expected = old + activation(sum + b, epilogue);
      // Each of the sum's roundings is of at most `size`; an activation's slope is at most 1.13.
      const double bound = (2 * static_cast<double>(weight.cols) + 8) * epsilon * (size + std::fabs(b) + std::fabs(old)) + 1e-30;
      const double error = std::fabs(out.host[static_cast<size_t>(t * out_stride + o)] - expected) / bound;
      if (!(error <= worst)) worst = error;
    }
    for (int64_t o = weight.rows; o < out_stride; ++o) gaps &= out.host[static_cast<size_t>(t * out_stride + o)] == -7.0f;
  }
  expect(worst < 1 && gaps, "%s, %ld x %ld, %ld tokens, epilogue %d, bias %d, gaps %ld and %ld: error %g of the bound, gaps %s",
         dtype_name(weight.dtype), weight.rows, weight.cols, tokens, static_cast<int>(epilogue), with_bias, x_gap, out_gap, worst,
         gaps ? "left alone" : "written");
}

std::vector<float> run(Linear& linear, const Weight& weight, const Both<float>& x, int64_t first, int64_t count, Epilogue epilogue) {
  Both<float> out(std::vector<float>(static_cast<size_t>(count * weight.rows), NAN));
  const Product product{{out.device, count, weight.rows}, {x.device + first * weight.cols, count, weight.cols}, weight.view(), {}, epilogue};
  linear.run({&product, 1});
  out.read();
  return out.host;
}

// On a GPU all kernels that it has are tested. The emulator is one of compute capability 8.6, and then, more slowly, of 9.0: for that, few.
bool emulates_hopper = false;
using Numbers = std::vector<int64_t>;
Numbers all_or(const Numbers& all, const Numbers& some) { return few ? some : all; }
std::vector<DType> dtypes() { return emulates_hopper ? std::vector<DType>{kDTypes[1], kDTypes[2]} : std::vector<DType>(std::begin(kDTypes), std::end(kDTypes)); }

void test_values(Linear& linear) {
  const auto any_epilogue = [] { return static_cast<Epilogue>(below(6)); };
  for (const DType dtype : dtypes()) {
    for (const int64_t rows : all_or({1, 15, 33, 130}, {130})) {
      for (const int64_t cols : all_or({1, 7, 64, 80, 600}, {7, 600})) {
        const Weight weight(rows, cols, dtype);
        for (const int64_t tokens : {1, 7, 8, 9, 17}) compare(linear, weight, tokens, any_epilogue(), below(2), below(2) * 11, below(2) * 5);
      }
    }
    const Weight weight(140, 80, dtype);
    for (const int64_t tokens : all_or({33, 64, 65, 150}, {40, 65})) compare(linear, weight, tokens, any_epilogue(), below(2), below(4), below(4));
    for (int e = 0; e < 6; ++e) {
      for (const int64_t tokens : {3, 12}) compare(linear, weight, tokens, static_cast<Epilogue>(e), true, 0, 0);
    }
  }
}

// With every number of multiprocessors, and so every way to share out a sum.
void test_bits() {
  for (const DType dtype : dtypes()) {
    const Weight weight(70, 1100, dtype);  // 18 units: slices of 2 and 3
    const int64_t most = few ? 130 : 150;
    const Both<float> x(normals(most * weight.cols));
    Linear one(nullptr, 1, true);
    const std::vector<float> all = run(one, weight, x, 0, most, Epilogue::gelu);
    for (const int64_t multiprocessors : all_or({6, 12, 200}, {3, 20})) {
      Linear linear(nullptr, multiprocessors, true);
      for (const int64_t tokens : all_or({1, 3, 8, 9, 31, 64, 100, 150}, {1, 8, 9, 31, 64, 100})) {
        const int64_t first = below(most - tokens + 1);
        expect(same(run(linear, weight, x, first, tokens, Epilogue::gelu), all.data() + first * weight.rows),
               "%s: tokens %ld + %ld have other bits on %ld multiprocessors", dtype_name(dtype), first, tokens, multiprocessors);
      }
    }
  }
}

// Products of a pass have the bits of passes of their own: beside others of other widths, with fewer slices, and behind another one in `out`.
void test_passes() {
  for (const DType dtype : dtypes()) {
    const Weight wide(70, 1100, dtype), narrow(33, 256, dtype), added(70, 300, dtype);
    PackedWeight half = narrow.view();
    half.parts = 2;
    for (const int64_t multiprocessors : all_or({1, 200}, {1, 30})) {
      Linear linear(nullptr, multiprocessors, true);
      for (const int64_t tokens : all_or({1, 5, 8, 9, 20, 60, 100}, {5, 20, 100})) {
        const Both<float> x(normals(tokens * 1100)), other_x(normals(tokens * 256));
        const std::vector<float> before = normals(tokens * 70);
        Both<float> sums[2] = {Both<float>(before), Both<float>(before)};
        Both<float> outs[2] = {Both<float>(normals(tokens * 33)), Both<float>(normals(tokens * 33))};
        const auto products = [&](int i) {
          const Matrix<float> sum(sums[i].device, tokens, 70);
          return std::vector<Product>{{{outs[i].device, tokens, 33}, {other_x.device, tokens, 256}, half, {}, Epilogue::silu},
                                      {sum, {x.device, tokens, 1100}, wide.view(), {}, Epilogue::accumulate},
                                      {sum, {x.device, tokens, 300, 1100}, added.view(), {}, Epilogue::accumulate}};
        };
        const std::vector<Product> together = products(0), apart = products(1);
        linear.run({together.data(), 3});
        for (const Product& one : apart) linear.run({&one, 1});
        for (int i = 0; i < 2; ++i) sums[i].read(), outs[i].read();
        expect(same(outs[0].host, outs[1].host.data()) && same(sums[0].host, sums[1].host.data()),
               "%s: a pass of %ld tokens has other bits on %ld multiprocessors", dtype_name(dtype), tokens, multiprocessors);
      }
    }
  }
}

// What one token's numbers are does not reach another's outputs.
void test_not_finite(Linear& linear) {
  for (const DType dtype : dtypes()) {
    const Weight weight(20, 70, dtype);
    for (const int64_t tokens : {4, 12}) {
      Both<float> x(normals(tokens * 70));
      x.host[70 + 3] = NAN;
      x.host[2 * 70 + 69] = std::numeric_limits<float>::infinity();
      x.write();
      const std::vector<float> out = run(linear, weight, x, 0, tokens, Epilogue::relu);
      for (size_t i = 0; i < out.size(); ++i) {
        const size_t token = i / 20;
        expect(token == 1 ? std::isnan(out[i]) : token == 2 ? !std::isnan(out[i]) : std::isfinite(out[i]), "%s: token %zu has %g",
               dtype_name(dtype), token, static_cast<double>(out[i]));
      }
    }
  }
}

void test_scratch() {
  Linear linear(nullptr, 4, true);
  const ScratchLimits limits = [] {
    ScratchLimits all{};
    all.rows = 20;
    all.cols = 100;
    return all;
  }();
  linear.reserve_scratch(limits);
  const int64_t held = linear.held_scratch_bytes();
  expect(held == linear.scratch_bytes(limits), "%ld bytes are held of %ld", held, linear.scratch_bytes(limits));
  const Weight weight(10, 100, DType::float16);
  const Both<float> x(normals(20 * 100));
  run(linear, weight, x, 0, 20, Epilogue::store);
  expect(linear.held_scratch_bytes() == held, "a call within the limits took memory");
}

void test_plan() {
  for (const int64_t multiprocessors : {1, 4, 46, 108, 132, 144}) {
    for (int64_t rows = 1; rows < 60000; rows = rows * 3 / 2 + 1) {
      for (int64_t tokens = 9; tokens < 3000; tokens = tokens * 3 / 2 + 1) {
        const LinearTile tile = plan_linear(rows, tokens, kNumSlices, multiprocessors);
        const int64_t blocks = ceil_div(rows, tile.rows) * ceil_div(tokens, tile.tokens) * tile.splits;
        expect(tile.splits == 1 || blocks <= max_split_blocks(multiprocessors), "%ld x %ld on %ld: %ld blocks share sums", rows, tokens,
               multiprocessors, blocks);
        expect(tile.rows * tile.tokens <= kMaxTileNumbers, "a tile of %ld x %ld", tile.rows, tile.tokens);
      }
    }
  }
}

void test_shares() {
  for (const int64_t blocks : {1, 7, 132}) {
    for (const int64_t items : {1, 5, 131, 132, 300}) {
      for (int64_t first_extra = 0; first_extra < blocks; first_extra += 1 + blocks / 5) {
        const Shares shares = Shares::of(items, blocks, first_extra);
        bool right = shares.begin(0) == 0 && shares.begin(static_cast<int32_t>(blocks)) == items;
        for (int32_t block = 0; block < blocks; ++block) {
          const int32_t count = shares.begin(block + 1) - shares.begin(block);
          right &= count == items / blocks + ((block - first_extra + blocks) % blocks < items % blocks);
          for (int32_t item = shares.begin(block); item < shares.begin(block + 1); ++item) right &= shares.block_of(item) == block;
        }
        expect(right, "%ld items for %ld blocks from block %ld on", items, blocks, first_extra);
      }
    }
  }
}

// What the blocks of a pass do, item by item: every slice is added once, and what is left of a tile are the nodes that are looked for, each in a
// place of its own.
void test_pass_plan() {
  for (int round = 0; round < 3000; ++round) {
    const int64_t blocks = round % 3 == 0 ? 132 : 1 + below(140), low = below(2);
    const PassCut cut{low ? kLowTileRows : 2 * kLowTileRows, int64_t{1} << below(4)};
    ProductShape shapes[kMaxProducts];
    const int64_t count = 1 + below(kMaxProducts);
    for (int64_t i = 0; i < count; ++i) {
      shapes[i] = {1 + below(30000), kUnitCols * (1 + below(200)), int64_t{1} << below(4), i > 0 && below(2) == 0};
      if (shapes[i].adds) shapes[i].rows = shapes[i - 1].rows;
    }
    const int64_t most_parts = blocks * kNumSlices * (1 + below(6));
    const PassPlan plan = plan_pass({shapes, count}, cut, blocks, most_parts);
    bool right = plan.num_products >= 1 && plan.num_products <= count;
    bool leaves = false;
    std::vector<int> uses(static_cast<size_t>(most_parts));
    for (int64_t p = 0; p < plan.num_products && right; ++p) {
      const ProductCut& product = plan.products[p];
      const int slices = product.num_slices();
      const int tiles = static_cast<int>(ceil_div(shapes[p].rows, cut.rows));
      right &= slices == shapes[p].num_slices && product.slice_begin(slices) == shapes[p].pitch / kUnitCols && tiles <= plan.most_tiles;
      // All that have its `out` are in its chain.
      right &= p == product.chain_first || shapes[p].adds;
      right &= product.chain_end >= plan.num_products || !shapes[product.chain_end].adds;
      std::vector<unsigned> added(static_cast<size_t>(tiles)), left(static_cast<size_t>(tiles));
      for (int block = 0; block < blocks && right; ++block) {
        for (int item = product.begin(block); item < product.begin(block + 1);) {
          const int tile = item >> product.log_slices, first = item - tile * slices;
          const int last = std::min(product.begin(block + 1) - tile * slices, slices);
          for (int slice = first, width; slice < last; slice += width) {
            width = product.node_width(slice, last);
            right &= width > 0 && slice % width == 0 && slice + width <= last && product.block_of(item) == block;
            for (int s = slice; s < slice + width; ++s) right &= !(added[static_cast<size_t>(tile)] >> s & 1), added[static_cast<size_t>(tile)] |= 1u << s;
            if (width < slices || product.in_chain()) {
              left[static_cast<size_t>(tile)] |= 1u << slice;
              const int64_t part = product.part_of(tile) + slice;
              right &= part >= 0 && part < most_parts && ++uses[static_cast<size_t>(part)] == 1;
            } else {
              right &= product.part_of(tile) == product.first_part + block * slices;  // where sums wait
            }
          }
          item = tile * slices + last;
        }
      }
      for (int tile = 0; tile < tiles && right; ++tile) {
        const unsigned bits = left[static_cast<size_t>(tile)];
        right &= added[static_cast<size_t>(tile)] == (1u << slices) - 1 && (bits != 0) == (product.in_chain() || product.cuts(tile) != 0);
        right &= bits == 0 || bits == product.left_nodes(tile);
        leaves |= bits != 0;
      }
    }
    right &= plan.leaves_parts || !leaves;
    expect(right, "round %d: a pass of %ld products for %ld blocks, tiles of %ld rows in grains of %ld", round, count, blocks, cut.rows, cut.grain);
  }
}

void test_all() {
  Linear linear(nullptr, 4, true);
  test_values(linear);
  test_bits();
  test_passes();
  test_not_finite(linear);
  test_scratch();
}

}  // namespace

int main(int argc, char** argv) {
  few = asks_for_few(argc, argv);
  test_plan();
  test_shares();
  test_pass_plan();
  test_all();
#ifdef PARLEY_CUDA_EMULATED
  setenv("PARLEY_EMULATED_CAPABILITY", "90", 1);
  emulates_hopper = few = true;
  test_all();
#endif
  if (failures) return 1;
  std::printf("linear: ok\n");
}

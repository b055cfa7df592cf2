// mix_experts gives a token the bits that it has alone, and what it has from going through its experts by linear and gate: the same bits again,
// but where linear is by wgmma, whose instructions add other sixteen columns together.
#include "cuda/experts.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <vector>

#include "cuda/elementwise.h"
#include "cuda/hopper.h"
#include "weights.h"

namespace {

using namespace parley;
using namespace parley::cuda;

struct Mixture {
  std::vector<std::unique_ptr<Weight>> gate_up, down;
  std::vector<ExpertWeights> views;
  Mixture(int64_t count, int64_t hidden, int64_t size, DType dtype) {
    for (int64_t e = 0; e < count; ++e) {
      gate_up.push_back(std::make_unique<Weight>(2 * size, hidden, dtype));
      down.push_back(std::make_unique<Weight>(hidden, size, dtype));
      views.push_back({gate_up.back()->view(), down.back()->view()});
    }
  }
};

// `chosen` different experts a token; `crowded`: mostly the first ones, so that some have many rows and some none.
std::vector<int32_t> choices(int64_t tokens, int64_t count, int64_t chosen, bool crowded) {
  std::vector<int32_t> all;
  std::vector<int32_t> experts(static_cast<size_t>(count));
  for (int64_t t = 0; t < tokens; ++t) {
    std::iota(experts.begin(), experts.end(), 0);
    if (!crowded || below(4) == 0) std::shuffle(experts.begin(), experts.end(), random_bits);
    all.insert(all.end(), experts.begin(), experts.begin() + chosen);
  }
  return all;
}

void compare(DType dtype, int64_t tokens, int64_t count, int64_t chosen, int64_t hidden, int64_t size, bool crowded) {
  Linear linear(nullptr, 4, true);
  Experts experts(nullptr, linear);
  ScratchLimits limits{};
  limits.rows = tokens;
  limits.cols = std::max(hidden, size);
  limits.expert_rows = tokens * chosen;
  limits.expert_hidden = hidden;
  limits.expert_size = size;
  linear.reserve_scratch(limits);
  experts.reserve_scratch(limits);
  const int64_t held = linear.held_scratch_bytes() + experts.held_scratch_bytes();
  expect(held == linear.scratch_bytes(limits) + experts.scratch_bytes(limits), "%ld bytes are held", held);

  const Mixture mixture(count, hidden, size, dtype);
  const Both<float> x(normals(tokens * (hidden + 1)));  // with a gap behind every row
  const Both<float> shares(normals(tokens * chosen));
  const Both<int32_t> chosen_experts(choices(tokens, count, chosen, crowded));
  Both<float> out(normals(tokens * hidden));
  std::vector<float> expected = out.host;
  experts.mix({out.device, tokens, hidden}, {x.device, tokens, hidden, hidden + 1}, {chosen_experts.device, tokens, chosen},
              {shares.device, tokens, chosen}, {mixture.views.data(), count}, Activation::silu);
  out.read();
  expect(linear.held_scratch_bytes() + experts.held_scratch_bytes() == held, "a call within the limits took memory");

  const bool same_order = dtype == DType::float32 || !runs_hopper_kernels();
  Both<float> alone(std::vector<float>(static_cast<size_t>(hidden)));
  Both<float> inner(std::vector<float>(static_cast<size_t>(2 * size), NAN));
  Both<float> middle(std::vector<float>(static_cast<size_t>(size), NAN));
  Both<float> outer(std::vector<float>(static_cast<size_t>(hidden), NAN));
  bool has_bits_alone = true;
  for (int64_t t = 0; t < tokens; ++t) {
    const auto row = expected.begin() + t * hidden;
    if (few && t > 0 && below(16) > 0) {  // not looked at
      std::copy_n(out.host.begin() + t * hidden, hidden, row);
      continue;
    }
    std::copy(row, row + hidden, alone.host.begin());
    alone.write();
    experts.mix({alone.device, 1, hidden}, {x.device + t * (hidden + 1), 1, hidden}, {chosen_experts.device + t * chosen, 1, chosen},
                {shares.device + t * chosen, 1, chosen}, {mixture.views.data(), count}, Activation::silu);
    alone.read();
    has_bits_alone &= std::memcmp(alone.host.data(), out.host.data() + t * hidden, alone.bytes()) == 0;

    std::vector<float> sum(static_cast<size_t>(hidden), 0.0f);
    for (int64_t j = 0; j < chosen; ++j) {
      const ExpertWeights& expert = mixture.views[static_cast<size_t>(chosen_experts.host[static_cast<size_t>(t * chosen + j)])];
      const Product up{{inner.device, 1, 2 * size}, {x.device + t * (hidden + 1), 1, hidden}, expert.gate_up, {}, Epilogue::store};
      linear.run({&up, 1});
      gate(nullptr, {middle.device, 1, size}, {inner.device, 1, 2 * size}, Activation::silu);
      const Product down{{outer.device, 1, hidden}, {middle.device, 1, size}, expert.down, {}, Epilogue::store};
      linear.run({&down, 1});
      outer.read();
      for (size_t i = 0; i < sum.size(); ++i) sum[i] = std::fmaf(shares.host[static_cast<size_t>(t * chosen + j)], outer.host[i], sum[i]);
    }
    for (size_t i = 0; i < sum.size(); ++i) row[static_cast<int64_t>(i)] += sum[i];
  }
  const char* form = "%s: %ld tokens, %ld of %ld experts, %ld to %ld, crowded %d: %s";
  expect(has_bits_alone, form, dtype_name(dtype), tokens, chosen, count, hidden, size, crowded, "other bits than alone");
  // Another last bit of a sum can round a number between the two matrices up in place of down.
  float largest = 0, worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    const float difference = std::abs(out.host[i] - expected[i]);
    if (!(difference <= worst)) worst = difference;  // also keeps NaN
  }
  expect(same_order ? same(out.host, expected.data()) : worst <= largest / 64, form, dtype_name(dtype), tokens, chosen, count, hidden, size,
         crowded, "not what linear makes of it");
}

void test_too_many() {
  Linear linear(nullptr, 4, true);
  Experts experts(nullptr, linear);
  const std::vector<ExpertWeights> many(static_cast<size_t>(kMaxExperts + 1));
  try {
    experts.mix({nullptr, 1, 1}, {nullptr, 1, 1}, {nullptr, 1, 1}, {nullptr, 1, 1}, {many.data(), kMaxExperts + 1}, Activation::silu);
    expect(false, "%s", "a mixture of too many experts is taken");
  } catch (const Error&) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  few = asks_for_few(argc, argv);
  for (const DType dtype : kDTypes) {
    for (const bool crowded : {false, true}) {
      compare(dtype, 1, 4, 2, 40, 24, crowded);
      compare(dtype, 8, 3, 2, 17, 70, crowded);
      compare(dtype, 9, 8, 2, 70, 40, crowded);
      compare(dtype, 70, 4, 3, 20, 33, crowded);
    }
  }
  compare(DType::float16, 600, 3, 2, 8, 8, true);  // several steps of the sort a warp, several tiles an expert
  compare(DType::bfloat16, 20, kMaxExperts, 8, 8, 8, false);
  test_too_many();
  if (failures) return 1;
  std::printf("experts: ok\n");
}

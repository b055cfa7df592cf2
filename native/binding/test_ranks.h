// Shards, collectives and the watch over ranks, for tests.
#pragma once

#include <napi.h>

namespace parley {

// Adds to the exports:
//   testShards(spec, numRanks)                  each rank's {heads, kv_heads, mlp, expert, vocab}, ranges as [first, count]
//   testRanks(isa, numRanks, stoppedAfterMs)    ranks without a model; see test/ops/collective.test.ts for its methods
void register_test_ranks(Napi::Env env, Napi::Object exports);

}  // namespace parley

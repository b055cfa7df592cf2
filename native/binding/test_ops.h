// The ops of ops.def and the calibration, for tests and the benchmark.
#pragma once

#include <napi.h>

namespace parley {

// Adds to the exports:
//   testOps(isa, numThreads)     an object with a method for every op; see test/ops/addon.ts for the arguments
//   hasIsa(isa)                  whether this machine can run these kernels
//   calibrate(isa, numThreads, bytes, seconds)   {readGBps, fmaGflops}, measured for `seconds` each
void register_test_ops(Napi::Env env, Napi::Object exports);

}  // namespace parley

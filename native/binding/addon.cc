// The addon's door. Exports: loadEngine, stopLoading, planMemory and forwardLogits (engine_object.cc), testOps and calibrate (test_ops.cc), testPace
// (test_pace.cc), testShards and testRanks (test_ranks.cc), cudaDevices (gpus.cc), tryLockFile (file_lock.cc).
#include <napi.h>

#include "binding/engine_object.h"
#include "binding/file_lock.h"
#include "binding/gpus.h"
#include "binding/test_ops.h"
#include "binding/test_pace.h"
#include "binding/test_ranks.h"

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  parley::register_engine(env, exports);
  parley::register_test_ops(env, exports);
  parley::register_test_pace(env, exports);
  parley::register_test_ranks(env, exports);
  parley::register_gpus(env, exports);
  parley::register_file_lock(env, exports);
  return exports;
}

NODE_API_MODULE(parley, initialize)

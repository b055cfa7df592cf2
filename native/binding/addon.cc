// The addon's door. Exports: loadEngine and forwardLogits (engine_object.cc), testOps and calibrate (test_ops.cc).
#include <napi.h>

#include "binding/engine_object.h"
#include "binding/test_ops.h"

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  parley::register_engine(env, exports);
  parley::register_test_ops(env, exports);
  return exports;
}

NODE_API_MODULE(parley, initialize)

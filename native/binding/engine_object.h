// The Engine as a JavaScript object.
#pragma once

#include <napi.h>

namespace parley {

// Adds loadEngine(spec, tensors, files, options, onProgress, onEvents): Promise<engine> and forwardLogits(...) to the exports.
void register_engine(Napi::Env env, Napi::Object exports);

}  // namespace parley

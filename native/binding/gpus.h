// The GPUs that the engine can compute on.
#pragma once

#include <napi.h>

namespace parley {

// Exports cudaDevices.
void register_gpus(Napi::Env env, Napi::Object exports);

}  // namespace parley

// The pace of prompts alone, for its test.
#pragma once

#include <napi.h>

namespace parley {

// Adds to the exports:
//   testPace()   a new PrefillPace: { saveUp(numDecodes, numBehind): number, ran(numDecodes, numPromptTokens, ms): void }
void register_test_pace(Napi::Env env, Napi::Object exports);

}  // namespace parley

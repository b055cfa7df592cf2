#include "binding/test_pace.h"

#include <memory>

#include "engine/prefill_pace.h"

namespace parley {
namespace {

int64_t count(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsNumber()) throw Napi::TypeError::New(info.Env(), "testPace: expected numbers");
  return info[index].As<Napi::Number>().Int64Value();
}

Napi::Value test_pace(const Napi::CallbackInfo& info) {
  const auto pace = std::make_shared<PrefillPace>();
  const auto save_up = [pace](const Napi::CallbackInfo& call) {
    return Napi::Number::New(call.Env(), static_cast<double>(pace->save_up(count(call, 0), count(call, 1))));
  };
  const auto ran = [pace](const Napi::CallbackInfo& call) {
    const int64_t num_decodes = count(call, 0);
    const int64_t num_prompt_tokens = count(call, 1);
    count(call, 2);
    pace->ran(num_decodes, num_prompt_tokens, call[2].As<Napi::Number>().DoubleValue());
  };
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("saveUp", Napi::Function::New(info.Env(), save_up));
  object.Set("ran", Napi::Function::New(info.Env(), ran));
  return object;
}

}  // namespace

void register_test_pace(Napi::Env env, Napi::Object exports) { exports.Set("testPace", Napi::Function::New(env, test_pace, "testPace")); }

}  // namespace parley

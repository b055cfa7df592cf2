#include "binding/engine_object.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "binding/read_contract.h"
#include "engine/engine.h"
#include "model/checked.h"
#include "model/device.h"
#include "model/memory.h"

namespace parley {
namespace {

// Runs `body` and turns native errors into JavaScript ones: no C++ exception may cross the border.
template <class Body>
auto guarded(Napi::Env env, Body body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

std::vector<int32_t> read_tokens(Napi::Value value, const char* where) {
  check(value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_int32_array, where, ": expected an Int32Array");
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

Napi::Array read_array(Napi::Value value, const char* where) {
  check(value.IsArray(), where, ": expected an array");
  return value.As<Napi::Array>();
}

ModelSource read_source(Napi::Value spec, Napi::Value tensors, Napi::Value files) {
  ModelSource source;
  source.spec = read_contract<ModelSpec>(spec, "spec");
  const auto tensor_list = read_array(tensors, "tensors");
  for (uint32_t i = 0; i < tensor_list.Length(); ++i) {
    source.tensors.push_back(read_contract<TensorSource>(tensor_list.Get(i), "tensors[" + std::to_string(i) + "]"));
  }
  const auto file_list = read_array(files, "files");
  for (uint32_t i = 0; i < file_list.Length(); ++i) {
    check(file_list.Get(i).IsString(), "files[", i, "]: expected a path");
    source.files.push_back(file_list.Get(i).As<Napi::String>().Utf8Value());
  }
  return source;
}

// A step's events on their way to JavaScript.
struct Delivery {
  PackedEvents events;
  std::string failure;
};

void deliver(Napi::Env env, Napi::Function on_events, std::nullptr_t*, Delivery* delivery) {
  const std::unique_ptr<Delivery> owned(delivery);
  if (env == nullptr || on_events.IsEmpty()) return;  // JavaScript is going away
  auto buffer = Napi::ArrayBuffer::New(env, owned->events.size() * sizeof(int32_t));
  std::memcpy(buffer.Data(), owned->events.data(), buffer.ByteLength());
  on_events.Call({buffer, Napi::String::New(env, owned->failure)});
}

using EventFunction = Napi::TypedThreadSafeFunction<std::nullptr_t, Delivery, deliver>;

// Joins the engine's thread away from the JavaScript thread: a step may still run.
class CloseTask : public Napi::AsyncWorker {
 public:
  CloseTask(Napi::Env env, std::unique_ptr<Engine> engine, EventFunction on_events)
      : AsyncWorker(env), deferred(Napi::Promise::Deferred::New(env)), engine_(std::move(engine)), on_events_(on_events) {}

  void Execute() override { engine_.reset(); }
  void OnOK() override {
    on_events_.Release();
    deferred.Resolve(Env().Undefined());
  }

  Napi::Promise::Deferred deferred;

 private:
  std::unique_ptr<Engine> engine_;
  EventFunction on_events_;
};

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::FunctionReference* define(Napi::Env env) {
    const Napi::Function type = DefineClass(env, "Engine",
                                            {InstanceMethod<&EngineObject::submit>("submit"), InstanceMethod<&EngineObject::cancel>("cancel"),
                                             InstanceMethod<&EngineObject::acknowledge>("acknowledge"),
                                             InstanceMethod<&EngineObject::stats>("stats"), InstanceMethod<&EngineObject::info>("info"),
                                             InstanceMethod<&EngineObject::close>("close")});
    return new Napi::FunctionReference(Napi::Persistent(type));
  }

  explicit EngineObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {}

  // When JavaScript drops the object without close().
  ~EngineObject() override {
    if (engine_ == nullptr) return;
    stop_with_environment_.Remove(Env());
    engine_.reset();
    on_events_.Release();
  }

  // The engine's thread must be gone before Node ends and takes the thread-safe function away: hooks run last in, first out.
  void adopt(std::unique_ptr<Engine> engine, EventFunction on_events) {
    engine_ = std::move(engine);
    on_events_ = on_events;
    stop_with_environment_ = Env().AddCleanupHook(+[](EngineObject* self) { self->engine_.reset(); }, this);
  }

 private:
  Engine& engine() const {
    check(engine_ != nullptr, "the engine is closed");
    return *engine_;
  }

  // submit(prompt: Int32Array, params: SamplingParams, numChoices: number): number
  Napi::Value submit(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      check(info[2].IsNumber(), "choices: expected a number");
      const uint32_t id = engine().submit(read_tokens(info[0], "prompt"), read_contract<SamplingParams>(info[1], "sampling"),
                                          info[2].As<Napi::Number>().Int64Value());
      return Napi::Number::New(info.Env(), id);
    });
  }

  // cancel(id: number): void
  Napi::Value cancel(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      check(info[0].IsNumber(), "id: expected a number");
      engine().cancel(info[0].As<Napi::Number>().Uint32Value());
      return info.Env().Undefined();
    });
  }

  // acknowledge(id: number, numTokens: number): void
  Napi::Value acknowledge(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      check(info[0].IsNumber() && info[1].IsNumber(), "id, numTokens: expected numbers");
      engine().acknowledge(info[0].As<Napi::Number>().Uint32Value(), info[1].As<Napi::Number>().Uint32Value());
      return info.Env().Undefined();
    });
  }

  // stats(): EngineStats
  Napi::Value stats(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] { return write_contract(info.Env(), engine().stats()); });
  }

  Napi::Value info(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] { return write_contract(info.Env(), engine().info()); });
  }

  // close(): Promise<void>
  Napi::Value close(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      engine();
      stop_with_environment_.Remove(info.Env());
      auto* task = new CloseTask(info.Env(), std::move(engine_), on_events_);
      const Napi::Promise promise = task->deferred.Promise();
      task->Queue();
      return promise;
    });
  }

  std::unique_ptr<Engine> engine_;
  EventFunction on_events_;
  Napi::Env::CleanupHook<void (*)(EngineObject*), EngineObject> stop_with_environment_;
};

struct AddonData {
  std::unique_ptr<Napi::FunctionReference> engine_type;
};

// The process goes away: loads end at their next part. Node waits for what runs on its threads, so a signal would have to wait too.
std::atomic<bool> loading_stopped{false};

// Loads the weights away from the JavaScript thread; reports fractions on the way.
class LoadTask : public Napi::AsyncProgressWorker<double> {
 public:
  LoadTask(Napi::Env env, ModelSource source, const EngineOptions& options, Napi::Function on_progress, EventFunction on_events)
      : AsyncProgressWorker(env),
        deferred(Napi::Promise::Deferred::New(env)),
        source_(std::move(source)),
        options_(options),
        on_progress_(Napi::Persistent(on_progress)),
        on_events_(on_events) {}

  void Execute(const ExecutionProgress& progress) override {
    try {
      auto ranks = std::make_unique<RankGroup>(source_, options_, [&](double fraction) {
        check(!loading_stopped, "the load was stopped");
        progress.Send(&fraction, 1);
      });
      engine_ = std::make_unique<Engine>(std::move(ranks), options_, [on_events = on_events_](PackedEvents&& events, std::string&& failure) mutable {
        auto* delivery = new Delivery{std::move(events), std::move(failure)};
        if (on_events.NonBlockingCall(delivery) != napi_ok) delete delivery;  // JavaScript is going away
      });
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnProgress(const double* fraction, size_t) override {
    if (fraction != nullptr) on_progress_.Call({Napi::Number::New(Env(), *fraction)});
  }

  void OnOK() override {
    const Napi::Object object = Env().GetInstanceData<AddonData>()->engine_type->New({});
    EngineObject::Unwrap(object)->adopt(std::move(engine_), on_events_);
    deferred.Resolve(object);
  }

  void OnError(const Napi::Error& error) override {
    on_events_.Release();
    deferred.Reject(error.Value());
  }

  Napi::Promise::Deferred deferred;

 private:
  ModelSource source_;
  EngineOptions options_;
  Napi::FunctionReference on_progress_;
  EventFunction on_events_;
  std::unique_ptr<Engine> engine_;
};

// loadEngine(spec, tensors, files, options, onProgress, onEvents): Promise<Engine>
Napi::Value load_engine(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    ModelSource source = read_source(info[0], info[1], info[2]);
    const EngineOptions options = read_contract<EngineOptions>(info[3], "options");
    check(info[4].IsFunction() && info[5].IsFunction(), "onProgress, onEvents: expected functions");
    auto on_events = EventFunction::New(env, info[5].As<Napi::Function>(), "parley events", 0, 1);
    auto* task = new LoadTask(env, std::move(source), options, info[4].As<Napi::Function>(), on_events);
    const Napi::Promise promise = task->deferred.Promise();
    task->Queue();
    return promise;
  });
}

// stopLoading()
void stop_loading(const Napi::CallbackInfo&) { loading_stopped = true; }

// planMemory(spec, options): MemoryPlan
Napi::Value plan_memory_of(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const ModelSpec spec = read_contract<ModelSpec>(info[0], "spec");
    const EngineOptions options = read_contract<EngineOptions>(info[1], "options");
    const auto backend = make_backend(options, 0, 1);
    return write_contract(info.Env(), plan_memory(checked(spec), options, *backend));
  });
}

// forwardLogits(spec, tensors, files, options, tokens: Int32Array, prompt?: Int32Array): Float32Array [tokens, vocab]. For tests
// against references: the logits of every position of one sequence, computed in chunks of max_num_batched_tokens. `prompt`: what the
// encoder reads, where there is one.
Napi::Value forward_logits(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const EngineOptions options = read_contract<EngineOptions>(info[3], "options");
    const std::vector<int32_t> tokens = read_tokens(info[4], "tokens");
    const std::vector<int32_t> prompt = info[5].IsUndefined() ? std::vector<int32_t>() : read_tokens(info[5], "prompt");
    RankGroup ranks(read_source(info[0], info[1], info[2]), options, [](double) {});
    check(prompt.empty() == (ranks.spec().num_encoder_layers == 0), "prompt: expected with an encoder, and only then");
    const int64_t num_tokens = static_cast<int64_t>(tokens.size());
    const int64_t num_encoded = static_cast<int64_t>(prompt.size());
    const int64_t vocab = ranks.spec().vocab_size;
    check(num_tokens + num_encoded <= static_cast<int64_t>(ranks.info().max_model_len), "tokens: expected at most ",
          ranks.info().max_model_len, ", got ", num_tokens + num_encoded);
    for (const auto* ids : {&tokens, &prompt}) {
      for (const int32_t token : *ids) check(token >= 0 && token < vocab, "tokens: expected ids from 0 to ", vocab - 1, ", got ", token);
    }
    // The prompt's pages, then the tokens'.
    std::vector<int32_t> pages(static_cast<size_t>(ceil_div(num_encoded, kPageSize) + ceil_div(num_tokens, kPageSize)));
    std::iota(pages.begin(), pages.end(), 0);
    const int64_t num_encoder_pages = ceil_div(num_encoded, kPageSize);
    auto result = Napi::Float32Array::New(info.Env(), tokens.size() * static_cast<size_t>(vocab));
    for (int64_t first = 0; first < num_tokens; first += options.max_num_batched_tokens) {
      Step step;
      for (int64_t i = first; i < std::min(num_tokens, first + options.max_num_batched_tokens); ++i) {
        step.tokens.push_back(tokens[static_cast<size_t>(i)]);
        step.positions.push_back(static_cast<int32_t>(i));
        step.slots.push_back(static_cast<int32_t>(num_encoder_pages * kPageSize + i));
        step.sequences.push_back(0);
        if (num_encoded > 0) step.encoder_positions.push_back(static_cast<int32_t>(num_encoded - 1));
      }
      if (first == 0 && num_encoded > 0) {
        step.encoder_jobs.push_back({{prompt.data(), num_encoded}, {pages.data(), num_encoder_pages}, 0, ranks.spec().num_encoder_layers});
      }
      step.encoder_page_table.assign(pages.begin(), pages.begin() + num_encoder_pages);
      step.page_table.assign(pages.begin() + num_encoder_pages, pages.end());
      step.num_sequences = 1;
      step.max_pages = static_cast<int64_t>(step.page_table.size());
      step.max_encoder_pages = num_encoder_pages;
      const std::vector<float> logits = ranks.logits(step);
      std::copy(logits.begin(), logits.end(), result.Data() + first * vocab);
    }
    return result;
  });
}

}  // namespace

void register_engine(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData{std::unique_ptr<Napi::FunctionReference>(EngineObject::define(env))};
  env.SetInstanceData(data);
  exports.Set("loadEngine", Napi::Function::New(env, load_engine, "loadEngine"));
  exports.Set("stopLoading", Napi::Function::New(env, stop_loading, "stopLoading"));
  exports.Set("planMemory", Napi::Function::New(env, plan_memory_of, "planMemory"));
  exports.Set("forwardLogits", Napi::Function::New(env, forward_logits, "forwardLogits"));
}

}  // namespace parley

#include "binding/gpus.h"

#include <algorithm>
#include <string>
#include <vector>

#include "cuda/cuda_library.h"

namespace parley {
namespace {

// Away from the JavaScript thread: a GPU's context takes some hundred milliseconds to make.
class DescribeTask : public Napi::AsyncWorker {
 public:
  DescribeTask(Napi::Env env, int64_t count) : AsyncWorker(env), deferred(Napi::Promise::Deferred::New(env)), count_(count) {}

  void Execute() override {
    try {
      const CudaLibrary& library = cuda_library();
      const int64_t count = std::min<int64_t>(count_, library.count_devices());
      for (int64_t i = 0; i < count; ++i) devices_.push_back(library.describe(static_cast<int>(i)));
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnOK() override {
    Napi::Array list = Napi::Array::New(Env());
    for (const CudaDevice& device : devices_) {
      Napi::Object object = Napi::Object::New(Env());
      object.Set("name", device.name);
      object.Set("computeCapability", std::to_string(device.major) + "." + std::to_string(device.minor));
      object.Set("totalBytes", static_cast<double>(device.total_bytes));
      object.Set("freeBytes", static_cast<double>(device.free_bytes));
      object.Set("hasCublasLt", device.has_cublaslt);
      list.Set(list.Length(), object);
    }
    deferred.Resolve(list);
  }

  void OnError(const Napi::Error& error) override { deferred.Reject(error.Value()); }

  Napi::Promise::Deferred deferred;

 private:
  int64_t count_;
  std::vector<CudaDevice> devices_;
};

// cudaDevices(count: number): Promise<CudaDevice[]>, the first `count` or as many as there are
Napi::Value cuda_devices(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber()) throw Napi::TypeError::New(info.Env(), "cudaDevices: expected a count");
  auto* task = new DescribeTask(info.Env(), info[0].As<Napi::Number>().Int64Value());
  const Napi::Promise promise = task->deferred.Promise();
  task->Queue();
  return promise;
}

}  // namespace

void register_gpus(Napi::Env env, Napi::Object exports) {
  exports.Set("cudaDevices", Napi::Function::New(env, cuda_devices, "cudaDevices"));
}

}  // namespace parley

#include "binding/file_lock.h"

#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace parley {
namespace {

// flock(2), and no lock of our own making: the kernel drops it when its holder dies, however it dies, and huggingface_hub takes the
// same lock on the same files. Never waits.
Napi::Value try_lock_file(const Napi::CallbackInfo& info) {
  if (info.Length() != 1 || !info[0].IsNumber()) throw Napi::TypeError::New(info.Env(), "tryLockFile: expected a file descriptor");
  int result;
  do {
    result = flock(info[0].As<Napi::Number>().Int32Value(), LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EWOULDBLOCK) throw Napi::Error::New(info.Env(), std::string("flock: ") + std::strerror(errno));
  return Napi::Boolean::New(info.Env(), result == 0);
}

}  // namespace

void register_file_lock(Napi::Env env, Napi::Object exports) {
  exports.Set("tryLockFile", Napi::Function::New(env, try_lock_file, "tryLockFile"));
}

}  // namespace parley

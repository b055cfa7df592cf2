// An advisory lock on a file, for processes that share a folder.
#pragma once

#include <napi.h>

namespace parley {

// Adds to the exports:
//   tryLockFile(fd)   whether this process holds the exclusive lock now; throws Error (code in the message) where files cannot be locked
void register_file_lock(Napi::Env env, Napi::Object exports);

}  // namespace parley

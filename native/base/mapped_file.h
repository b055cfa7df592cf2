// A file mapped read-only.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/check.h"

namespace parley {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path) : path_(path) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    check(file >= 0, path, ": cannot open: ", std::strerror(errno));
    struct stat status;
    const bool known = fstat(file, &status) == 0 && status.st_size > 0;
    size_ = known ? static_cast<int64_t>(status.st_size) : 0;
    void* data = known ? mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    const int reason = errno;
    close(file);
    check(known, path, ": expected a file with content");
    check(data != MAP_FAILED, path, ": cannot map: ", std::strerror(reason));
    data_ = static_cast<const char*>(data);
  }
  ~MappedFile() { munmap(const_cast<char*>(data_), static_cast<size_t>(size_)); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const char* data() const { return data_; }
  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }

  // Gives the pages of [offset, offset + bytes) back to the page cache: resident memory must not hold the checkpoint twice.
  void forget(int64_t offset, int64_t bytes) const {
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t start = (offset + page - 1) / page * page;
    const int64_t end = (offset + bytes) / page * page;
    if (end > start) madvise(const_cast<char*>(data_) + start, static_cast<size_t>(end - start), MADV_DONTNEED);
  }

 private:
  std::string path_;
  int64_t size_ = 0;
  const char* data_ = nullptr;
};

}  // namespace parley

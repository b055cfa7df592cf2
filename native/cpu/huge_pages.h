// Anonymous memory in huge pages where the system has them.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/arithmetic.h"
#include "base/check.h"

namespace parley {

// Room for the first huge page to begin at a boundary of its own.
constexpr int64_t kHugePage = 2 << 20;

// Reserves `bytes`; pages are zero and cost no memory until they are touched. Throws Error if the system has no room.
inline void* map_huge_pages(int64_t bytes) {
  const int64_t size = checked_add(bytes, kHugePage);
  void* data = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(data != MAP_FAILED, "cannot reserve ", bytes, " bytes of memory: ", std::strerror(errno));
#ifdef MADV_HUGEPAGE
  madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);  // a wish: 2 MiB pages read 10-20% faster than 4 KiB ones
#endif
  return data;
}

inline void unmap_huge_pages(void* data, int64_t bytes) noexcept { munmap(data, static_cast<size_t>(bytes + kHugePage)); }

}  // namespace parley

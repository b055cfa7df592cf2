#include "engine/pages.h"

#include "base/check.h"

namespace parley {

PagePool::PagePool(int64_t num_pages) : num_pages_(num_pages) {
  free_.reserve(static_cast<size_t>(num_pages));
  for (int64_t page = num_pages - 1; page >= 0; --page) free_.push_back(static_cast<int32_t>(page));
}

bool PagePool::allocate(int64_t count, std::vector<int32_t>& pages) {
  if (count > num_free()) return false;
  for (int64_t i = 0; i < count; ++i) {
    pages.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void PagePool::release(std::vector<int32_t>& pages) {
  free_.insert(free_.end(), pages.rbegin(), pages.rend());
  pages.clear();
}

void PagePool::check_integrity(const std::vector<const std::vector<int32_t>*>& holders) const {
  std::vector<int> seen(static_cast<size_t>(num_pages_), 0);
  auto count = [&](const std::vector<int32_t>& pages) {
    for (const int32_t page : pages) {
      check(page >= 0 && page < num_pages_, "page ", page, ": expected 0 to ", num_pages_ - 1);
      ++seen[static_cast<size_t>(page)];
    }
  };
  count(free_);
  for (const auto* holder : holders) count(*holder);
  for (int64_t page = 0; page < num_pages_; ++page) {
    const int times = seen[static_cast<size_t>(page)];
    check(times == 1, "page ", page, ": expected one holder, found ", times);
  }
}

}  // namespace parley

#include "engine/page_pool.h"

#include "base/check.h"

namespace parley {

PagePool::PagePool(int64_t num_pages)
    : num_pages_(num_pages), pages_(static_cast<size_t>(num_pages) + 1), ends_(static_cast<int32_t>(num_pages)), index_(num_pages) {
  at(ends_).before = at(ends_).behind = ends_;
  for (int32_t page = 0; page < ends_; ++page) link(page, ends_);
}

bool PagePool::allocate(int64_t count, std::vector<int32_t>& pages) {
  if (count > num_free_) return false;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t page = at(ends_).behind;
    if (index_.contains(page)) index_.erase(page);
    hold(page);
    pages.push_back(page);
  }
  return true;
}

void PagePool::hold(int32_t page) {
  if (at(page).num_holders++ == 0) unlink(page);
}

// Blank pages go to the front, the one that was written last first: it may still be in the processor's cache.
void PagePool::release(int32_t page) {
  if (--at(page).num_holders == 0) link(page, index_.contains(page) ? ends_ : at(ends_).behind);
}

void PagePool::release(std::vector<int32_t>& pages) {
  for (auto page = pages.rbegin(); page != pages.rend(); ++page) release(*page);
  pages.clear();
}

void PagePool::forget() {
  for (int32_t page = 0; page < ends_; ++page) {
    if (index_.contains(page)) index_.erase(page);
  }
}

void PagePool::link(int32_t page, int32_t behind) {
  const int32_t before = at(behind).before;
  at(page).before = before;
  at(page).behind = behind;
  at(before).behind = at(behind).before = page;
  ++num_free_;
}

void PagePool::unlink(int32_t page) {
  at(at(page).before).behind = at(page).behind;
  at(at(page).behind).before = at(page).before;
  --num_free_;
}

void PagePool::check_integrity(const std::vector<const std::vector<int32_t>*>& holders) const {
  std::vector<int64_t> times(pages_.size(), 0);
  for (const auto* pages : holders) {
    for (const int32_t page : *pages) {
      check(page >= 0 && page < ends_, "page ", page, ": expected 0 to ", ends_ - 1);
      ++times[static_cast<size_t>(page)];
    }
  }
  int64_t num_unheld = 0;
  for (int32_t page = 0; page < ends_; ++page) {
    const int64_t found = times[static_cast<size_t>(page)];
    check(found == num_holders(page), "page ", page, ": expected ", num_holders(page), " holders, found ", found);
    num_unheld += found == 0;
  }
  int64_t num_listed = 0;
  for (int32_t page = pages_.back().behind; page != ends_; page = pages_[static_cast<size_t>(page)].behind) {
    check(num_holders(page) == 0, "page ", page, ": expected no holder, because it is free, found ", num_holders(page));
    check(++num_listed <= num_unheld, "free pages: expected ", num_unheld, " in the list, found more");
  }
  check(num_listed == num_unheld && num_listed == num_free_, "free pages: expected ", num_unheld, ", found ", num_listed, " in the list and ",
        num_free_, " counted");
  index_.check_integrity();
}

}  // namespace parley

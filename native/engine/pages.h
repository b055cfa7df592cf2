// Who holds which KV page.
#pragma once

#include <cstdint>
#include <vector>

namespace parley {

class PagePool {
 public:
  explicit PagePool(int64_t num_pages);

  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_used() const { return num_pages_ - num_free(); }

  // Appends `count` pages to `pages`; false, and nothing taken, if fewer are free.
  bool allocate(int64_t count, std::vector<int32_t>& pages);

  // Takes back all of `pages` and empties the list.
  void release(std::vector<int32_t>& pages);

  // Throws Error unless every page is either free or in exactly one of `holders`, once.
  void check_integrity(const std::vector<const std::vector<int32_t>*>& holders) const;

 private:
  int64_t num_pages_;
  std::vector<int32_t> free_;  // last in, first out: a page still in the cache is used again first
};

}  // namespace parley

// Who holds which KV page. A page has any number of holders; one that nobody holds is free. Free pages keep what they hold, for the
// prefix cache, until they are needed: blank ones are taken first, then those that were not used for the longest time.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/prefix_index.h"

namespace parley {

class PagePool {
 public:
  explicit PagePool(int64_t num_pages);

  int64_t num_free() const { return num_free_; }
  int64_t num_used() const { return num_pages_ - num_free_; }
  int64_t num_holders(int32_t page) const { return pages_[static_cast<size_t>(page)].num_holders; }

  // Appends `count` pages with one holder each to `pages`; false, and nothing taken, if fewer are free. What they held is forgotten.
  bool allocate(int64_t count, std::vector<int32_t>& pages);

  // One holder more.
  void hold(int32_t page);

  // One holder less.
  void release(int32_t page);

  // The same for all of `pages`, whose list becomes empty. The last ones are forgotten first: without what stands before them they are
  // of no use.
  void release(std::vector<int32_t>& pages);

  // The page that holds `tokens` [kPageSize] behind `prefix`; -1: none.
  int32_t find(PrefixIndex::Name prefix, const int32_t* tokens) const { return index_.find(prefix, tokens); }

  // From now on find() finds the page, which has a holder, as long as it is not allocated again.
  void publish(int32_t page, PrefixIndex::Name prefix, const int32_t* tokens) { index_.insert(page, prefix, tokens); }

  // The prefix that ends with a published page.
  PrefixIndex::Name name(int32_t page) const { return index_.name(page); }

  // Forgets what all pages hold.
  void forget();

  // Throws Error unless every page has as many holders as there are mentions of it in `holders`, and is free if there are none.
  void check_integrity(const std::vector<const std::vector<int32_t>*>& holders) const;

 private:
  struct Page {
    int32_t num_holders = 0;
    int32_t before = 0;  // its neighbours in the list of free pages
    int32_t behind = 0;
  };

  Page& at(int32_t page) { return pages_[static_cast<size_t>(page)]; }
  void link(int32_t page, int32_t behind);  // puts a page in front of `behind`
  void unlink(int32_t page);

  int64_t num_pages_;
  // Behind the pages stands one that is none: the list of free pages, the next to be allocated first, is a ring through it.
  std::vector<Page> pages_;
  int32_t ends_;
  int64_t num_free_ = 0;
  PrefixIndex index_;
};

}  // namespace parley

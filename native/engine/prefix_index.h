// Which page holds which tokens behind which others: the index of the prefix cache.
//
// A block is kPageSize tokens behind a prefix. A prefix is named by a number that is never used for another one, so that two blocks are
// equal, from the text's first token on, if the names before them and their tokens are. The hash only finds: equality decides, and a
// collision can never give another text's keys and values.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "ops/types.h"

namespace parley {

class PrefixIndex {
 public:
  // The empty prefix is named by its request's cache_salt, below 2^53; other names begin there.
  using Name = uint64_t;

  explicit PrefixIndex(int64_t num_pages);

  // The page whose block is `tokens` [kPageSize] behind `prefix`; -1: none.
  int32_t find(Name prefix, const int32_t* tokens) const;

  // Notes what `page` holds. Neither may be in the index already.
  void insert(int32_t page, Name prefix, const int32_t* tokens);
  void erase(int32_t page);

  bool contains(int32_t page) const { return entry(page).name != 0; }

  // The prefix that ends with this page's block.
  Name name(int32_t page) const { return entry(page).name; }

  // Throws Error unless every entry is found where its hash says, and only there.
  void check_integrity() const;

 private:
  struct Entry {
    Name name = 0;  // 0: the page is not in the index
    Name prefix = 0;
    std::array<int32_t, kPageSize> tokens;
    int32_t next = -1;  // page in the same bucket
  };

  const Entry& entry(int32_t page) const { return entries_[static_cast<size_t>(page)]; }
  size_t bucket(Name prefix, const int32_t* tokens) const;

  std::vector<Entry> entries_;    // one a page
  std::vector<int32_t> buckets_;  // first page of each; a power of two of them
  Name next_name_ = Name{1} << 53;
  uint64_t seed_;  // of the hash: nobody outside can make blocks that share a bucket
};

}  // namespace parley

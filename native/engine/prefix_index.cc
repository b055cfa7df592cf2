#include "engine/prefix_index.h"

#include <algorithm>
#include <random>

#include "base/check.h"

namespace parley {

PrefixIndex::PrefixIndex(int64_t num_pages) : entries_(static_cast<size_t>(num_pages)) {
  size_t num_buckets = 1;
  while (num_buckets < entries_.size()) num_buckets *= 2;
  buckets_.resize(num_buckets, -1);
  std::random_device random;
  seed_ = (uint64_t{random()} << 32) | random();
}

// Multiply and fold, with the odd constant nearest to 2^64 / golden ratio.
size_t PrefixIndex::bucket(Name prefix, const int32_t* tokens) const {
  constexpr uint64_t kFactor = 0x9E3779B97F4A7C15;
  uint64_t hash = (seed_ ^ prefix) * kFactor;
  for (int64_t i = 0; i < kPageSize; ++i) {
    hash = (hash ^ (hash >> 32) ^ static_cast<uint32_t>(tokens[i])) * kFactor;
  }
  return (hash ^ (hash >> 32)) & (buckets_.size() - 1);
}

int32_t PrefixIndex::find(Name prefix, const int32_t* tokens) const {
  for (int32_t page = buckets_[bucket(prefix, tokens)]; page >= 0; page = entry(page).next) {
    if (entry(page).prefix == prefix && std::equal(tokens, tokens + kPageSize, entry(page).tokens.begin())) return page;
  }
  return -1;
}

void PrefixIndex::insert(int32_t page, Name prefix, const int32_t* tokens) {
  int32_t& first = buckets_[bucket(prefix, tokens)];
  Entry& entry = entries_[static_cast<size_t>(page)];
  entry.name = next_name_++;
  entry.prefix = prefix;
  std::copy_n(tokens, kPageSize, entry.tokens.begin());
  entry.next = first;
  first = page;
}

void PrefixIndex::erase(int32_t page) {
  Entry& entry = entries_[static_cast<size_t>(page)];
  int32_t* link = &buckets_[bucket(entry.prefix, entry.tokens.data())];
  while (*link != page) link = &entries_[static_cast<size_t>(*link)].next;
  *link = entry.next;
  entry.name = 0;
}

void PrefixIndex::check_integrity() const {
  int64_t num_listed = 0;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    for (int32_t page = buckets_[b]; page >= 0; page = entry(page).next) {
      ++num_listed;
      check(contains(page) && bucket(entry(page).prefix, entry(page).tokens.data()) == b, "page ", page, ": expected in another bucket");
      check(find(entry(page).prefix, entry(page).tokens.data()) == page, "page ", page, ": expected the only one with its tokens");
    }
  }
  const auto num_entries = std::count_if(entries_.begin(), entries_.end(), [](const Entry& entry) { return entry.name != 0; });
  check(num_listed == num_entries, "prefix index: expected ", num_entries, " pages in its buckets, found ", num_listed);
}

}  // namespace parley

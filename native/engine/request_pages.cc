#include "engine/request_pages.h"

#include <algorithm>
#include <utility>

namespace parley {

void RequestPages::reuse(Request& request) {
  if (!caches(request)) return;
  while (request.num_computed == request.num_published * kPageSize && request.num_computed + kPageSize <= request.num_reusable()) {
    int32_t page = pool_.find(request.prefix, request.page_tokens(request.num_published));
    if (page < 0) return;
    pool_.hold(page);
    request.prefix = pool_.name(page);
    if (request.num_published == static_cast<int64_t>(request.pages.size())) {
      request.pages.push_back(page);
    } else {
      std::swap(request.page(request.num_published), page);
      pool_.release(page);
    }
    ++request.num_published;
    request.num_computed += kPageSize;
  }
}

bool RequestPages::ensure(Request& request, int64_t num_tokens, std::vector<PageCopy>& copies) {
  const int64_t num_missing = std::max<int64_t>(0, ceil_div(num_tokens, kPageSize) - static_cast<int64_t>(request.pages.size()));
  const int64_t first = request.num_computed / kPageSize;  // page that is written next
  const bool is_shared = request.num_computed % kPageSize != 0 && pool_.num_holders(request.page(first)) > 1;
  if (!pool_.allocate(num_missing + (is_shared ? 1 : 0), request.pages)) return false;
  if (is_shared) {
    int32_t& page = request.page(first);
    copies.push_back({page, request.pages.back()});
    pool_.release(page);
    page = request.pages.back();
    request.pages.pop_back();
  }
  return true;
}

void RequestPages::publish(Request& request) {
  if (!caches(request)) return;
  const int64_t num_full = std::min(request.num_computed, request.num_known());
  for (; (request.num_published + 1) * kPageSize <= num_full; ++request.num_published) {
    int32_t& page = request.page(request.num_published);
    const int32_t* tokens = request.page_tokens(request.num_published);
    const int32_t known = pool_.find(request.prefix, tokens);
    if (known < 0) {
      pool_.publish(page, request.prefix, tokens);
    } else {
      pool_.hold(known);
      replaced_.push_back(page);
      page = known;
    }
    request.prefix = pool_.name(page);
  }
}

void RequestPages::share(const Request& other, Request& request) {
  for (const int32_t page : other.pages) pool_.hold(page);
  request.pages = other.pages;
  request.num_computed = other.num_computed;
  request.num_encoded_layers = other.num_encoded_layers;
  request.num_published = other.num_published;
  request.prefix = other.prefix;
  request.num_cached = other.num_cached;
  request.num_seen = other.num_seen;
}

void RequestPages::release(Request& request) {
  pool_.release(request.pages);
  request.forget_pages();
}

void RequestPages::forget() {
  settle();
  pool_.forget();
}

void RequestPages::check_integrity(std::vector<const std::vector<int32_t>*> holders) const {
  holders.push_back(&replaced_);
  pool_.check_integrity(holders);
}

}  // namespace parley

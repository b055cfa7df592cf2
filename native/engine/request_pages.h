// Which pages a request has: its own, those that the prefix cache spares it, and those that it shares with other choices of its prompt
// until they write different tokens.
#pragma once

#include <vector>

#include "engine/page_pool.h"
#include "engine/request.h"
#include "model/step.h"

namespace parley {

class RequestPages {
 public:
  RequestPages(int64_t num_pages, bool prefix_caching) : pool_(num_pages), prefix_caching_(prefix_caching) {}

  int64_t num_free() const { return pool_.num_free(); }
  int64_t num_used() const { return pool_.num_used(); }

  // Whether the prefix cache takes the request's pages.
  bool caches(const Request& request) const { return prefix_caching_ && request.encoder_size == 0; }

  // Takes over pages of the prefix cache in place of what the request is about to compute. To be tried before each part of a prompt: of
  // requests that come together with the same beginning one computes it, and the others follow even within the step, because a layer
  // writes the keys and values of all rows before any row reads them.
  void reuse(Request& request);

  // Pages for the request's first `num_tokens`, of which those from num_computed on are written next. A shared page that they begin in
  // is replaced by a copy, which the step must make first. False, and nothing taken, if too few pages are free.
  bool ensure(Request& request, int64_t num_tokens, std::vector<PageCopy>& copies);

  // Puts the pages that are full of tokens that are known into the prefix cache: written by steps before, or by this one. Where another
  // request has computed the same, its page serves both.
  void publish(Request& request);

  // `request`, which has no pages, goes on from where `other` is now, with the same pages.
  void share(const Request& other, Request& request);

  // The request gives its pages back: all is to be computed again.
  void release(Request& request);

  // After the step ran: nobody writes the pages any more that others replaced.
  void settle() { pool_.release(replaced_); }

  // After a step failed: what it was to fill must not be found.
  void forget();

  // Throws Error unless every page has the holders that it counts, and is free if there are none.
  void check_integrity(std::vector<const std::vector<int32_t>*> holders) const;

 private:
  PagePool pool_;
  const bool prefix_caching_;
  std::vector<int32_t> replaced_;  // held until the step has run that writes them
};

}  // namespace parley

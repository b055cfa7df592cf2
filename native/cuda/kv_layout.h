// Where the numbers of a layer's KV pages lie (KvLayer in ops/types.h), keys and values alike: [num_pages, num_kv_heads, kPageSize,
// head_dim]. A key's numbers stand together, so that attention copies whole ones into shared memory, 16 bytes at a time.
#pragma once

#include <cstdint>

#include "ops/types.h"

namespace parley {
namespace cuda {

// Of number `dim` of the key or value of `head` at `offset` in `page`.
constexpr int64_t kv_index(int64_t page, int64_t head, int64_t offset, int64_t dim, int64_t num_kv_heads, int64_t head_dim) {
  return ((page * num_kv_heads + head) * kPageSize + offset) * head_dim + dim;
}

}  // namespace cuda
}  // namespace parley

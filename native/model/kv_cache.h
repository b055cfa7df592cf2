// Memory of the KV pages of all layers. Which page belongs to whom is the engine's business (engine/page_pool.h).
#pragma once

#include <vector>

#include "model/arena.h"
#include "ops/types.h"

namespace parley {

class KvCache {
 public:
  // spec: the rank's own.
  KvCache(const ModelSpec& spec, DType dtype, int64_t num_pages, Backend& backend)
      : page_numbers_(checked_mul(spec.num_kv_heads * spec.head_dim, kPageSize)),
        num_pages_(num_pages),
        arena_(backend, checked_add(checked_mul(num_pages, page_bytes(spec, dtype)), checked_mul(spec.num_layers, 2 * Arena::kAlignment))) {
    for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
      const int64_t layer_bytes = num_pages_ * page_numbers_ * dtype_bytes(dtype);
      void* keys = arena_.take(layer_bytes);
      layers_.push_back({keys, arena_.take(layer_bytes), dtype, num_pages_});
    }
  }

  // Bytes of one page, keys and values of all layers.
  static int64_t page_bytes(const ModelSpec& spec, DType dtype) {
    return checked_mul(checked_mul(2 * spec.num_layers, spec.num_kv_heads * spec.head_dim), kPageSize * dtype_bytes(dtype));
  }

  const KvLayer& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }
  int64_t num_pages() const { return num_pages_; }

 private:
  int64_t page_numbers_;
  int64_t num_pages_;
  Arena arena_;
  std::vector<KvLayer> layers_;
};

}  // namespace parley

// Attention over KV pages.
//
// A page holds 16 keys side by side, [head_dim][16], so 16 scores are one vector and need no horizontal sum. Several query vectors
// that read the same pages (neighbouring rows of a prompt, query heads that share a key/value head) go together and share the loads.
//
// What fixes the bits of one output, whatever stands beside it: a score is summed over head_dim in order; the largest score is exact;
// the sum of the exponentials runs in 16 lanes over the pages in order, then folds in a fixed tree; an output is summed over the keys
// in order, and a query never touches a key behind its own position or before its window.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/simd/simd.h"

namespace parley {
namespace PARLEY_ISA {
namespace {

// One query vector of a group.
struct Query {
  const float* q;
  float* out;
  const float* bias;    // row of its head in the table, or null
  int64_t bias_column;  // of key 0, whether the table has it or not
  int64_t first_key;  // it sees the keys [first_key, num_keys)
  int64_t num_keys;
};

// Rows [first_row, last_row) of one sequence.
struct RowGroup {
  int64_t first_row;
  int64_t last_row;
  int64_t cost;  // of one key/value head, about keys read
};

PARLEY_INLINE int64_t heads_per_kv(const AttentionCall& call) { return call.num_heads / call.num_kv_heads; }

PARLEY_INLINE int64_t first_key_of(const AttentionCall& call, int64_t position) {
  return call.window > 0 && position >= call.window ? position - call.window + 1 : 0;
}

PARLEY_INLINE int64_t num_keys_of(const AttentionCall& call, int64_t position) {
  return call.num_keys > 0 ? call.num_keys : position + 1;
}

// The group that starts at `row`. Only speed depends on where groups end.
PARLEY_INLINE RowGroup group_at(const AttentionCall& call, int64_t row) {
  const int64_t sharing = heads_per_kv(call);
  const int64_t most = sharing < kAttentionRows ? kAttentionRows / sharing : 1;
  RowGroup group{row, row, 0};
  while (group.last_row < call.num_rows && group.last_row - row < most &&
         call.sequences[group.last_row] == call.sequences[row]) {
    const int64_t last_key = num_keys_of(call, call.positions[group.last_row++]) - 1;
    group.cost += last_key - first_key_of(call, last_key) + 33;  // 32 keys' worth of work that every row has
  }
  return group;
}

// Distance between two queries' scores: whole pages, and not a multiple of 128 bytes, so that rows do not fall into the same cache set.
PARLEY_INLINE int64_t score_stride(int64_t num_keys) {
  return (num_keys + kPageTokens - 1) / kPageTokens * kPageTokens / 32 * 32 + 48;
}

template <int queries, class Number>
struct Pages {
  const Number* data;          // of one key/value head in page 0
  int64_t page_stride;         // numbers from page to page
  const int32_t* page_table;   // of the sequence
  const Number* page(int64_t p) const { return data + page_table[p] * page_stride; }
};

// With few queries the pages come from memory and the arithmetic waits for them. Pages of one head lie too far apart for the machine to
// foresee the next one.
template <int queries>
constexpr bool few_queries = queries * 2 <= kAttentionRows;

template <class Number>
PARLEY_INLINE void prefetch_numbers(const Number* numbers, int count) {
  for (int i = 0; i < count; i += 64 / static_cast<int>(sizeof(Number))) __builtin_prefetch(numbers + i);
}

// Scores of `pages` pages from page p on, masked, into scores; the largest into `top`.
template <int queries, int pages, class Number>
PARLEY_INLINE void score_pages(const Pages<queries, Number>& keys, const Query* query, const float* packed_q, int64_t head_dim,
                               float scale, int64_t p, int64_t num_pages, float* scores, int64_t stride, Vec (&top)[queries]) {
  static const float lane_numbers[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Number* page[pages];
  const Number* next[pages];
  Vec acc[queries][pages];
#pragma GCC unroll 4
  for (int i = 0; i < pages; ++i) {
    page[i] = keys.page(p + i);
    next[i] = keys.page(p + i + pages < num_pages ? p + i + pages : p + i);
#pragma GCC unroll 8
    for (int r = 0; r < queries; ++r) acc[r][i] = zero();
  }
  for (int64_t d = 0; d < head_dim; ++d) {
#pragma GCC unroll 4
    for (int i = 0; i < pages; ++i) {
      if (few_queries<queries>) prefetch_numbers(next[i] + d * kPageTokens, kPageTokens);
      const Vec key = load(page[i] + d * kPageTokens);
#pragma GCC unroll 8
      for (int r = 0; r < queries; ++r) acc[r][i] = fma(broadcast(packed_q[d * queries + r]), key, acc[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < pages; ++i) {
    const int64_t first_key = (p + i) * kPageTokens;
#pragma GCC unroll 8
    for (int r = 0; r < queries; ++r) {
      Vec score = acc[r][i] * broadcast(scale);
      const int64_t visible = query[r].num_keys - first_key;
      if (visible < kPageTokens) {
        const Mask inside = less(load(lane_numbers), broadcast(static_cast<float>(visible)));
        score = select(inside, score, broadcast(-__builtin_inff()));
      }
      const int64_t hidden = query[r].first_key - first_key;
      if (hidden > 0) {
        const Mask outside = less(load(lane_numbers), broadcast(static_cast<float>(hidden)));
        score = select(outside, broadcast(-__builtin_inff()), score);
      }
      store(scores + r * stride + first_key, score);
      top[r] = max(score, top[r]);
    }
  }
}

// Softcap and bias of one query's stored scores, from the page at `start` on; -inf, a key that it does not see, stays. Returns the
// largest in every lane.
PARLEY_INLINE Vec adjust_scores(const AttentionCall& call, const Query& query, int64_t start, float* scores) {
  const Vec nothing = broadcast(-__builtin_inff());
  Vec top = nothing;
  for (int64_t j = start; j < query.num_keys; j += kPageTokens) {
    const Vec raw = load(scores + j);
    Vec score = raw;
    if (call.softcap > 0) score = broadcast(call.softcap) * tanh(score * broadcast(1.0f / call.softcap));
    if (query.bias) {
      // A table's end on the left or right of this page: column by column.
      const int64_t column = query.bias_column + j;
      if (column >= 0 && column + kLanes <= call.bias_cols) {
        score = score + load(query.bias + column);
      } else {
        float lanes[kLanes];
        for (int64_t i = 0; i < kLanes; ++i) {
          const int64_t c = column + i;
          lanes[i] = query.bias[c < 0 ? 0 : c < call.bias_cols ? c : call.bias_cols - 1];
        }
        score = score + load(lanes);
      }
    }
    score = select(equal(raw, nothing), nothing, score);
    store(scores + j, score);
    top = max(score, top);
  }
  return top;
}

// acc += sum over the keys [first, last) of weight * value, for head dims [first_dim, first_dim + vecs * 16); dims_left < 16 only
// with one vector, at the end of an odd head_dim.
template <int queries, int vecs, class Number>
PARLEY_INLINE void add_values(const Pages<queries, Number>& values, const float* weights, int64_t stride, int64_t first, int64_t last,
                              int64_t head_dim, int64_t first_dim, int64_t dims_left, Vec (&acc)[queries][vecs]) {
  for (int64_t start = first; start < last;) {
    const int64_t page = start / kPageTokens;
    const int64_t stop = (page + 1) * kPageTokens < last ? (page + 1) * kPageTokens : last;
    const Number* value = values.page(page) + (start - page * kPageTokens) * head_dim + first_dim;
    const Number* next = values.page(stop < last ? page + 1 : page) + first_dim;
    for (int64_t j = start; j < stop; ++j, value += head_dim, next += head_dim) {
      if (few_queries<queries>) prefetch_numbers(next, vecs * kLanes);
      Vec v[vecs];
#pragma GCC unroll 4
      for (int i = 0; i < vecs; ++i) v[i] = dims_left >= kLanes ? load(value + i * kLanes) : load_partial(value, dims_left);
#pragma GCC unroll 8
      for (int r = 0; r < queries; ++r) {
        const Vec weight = broadcast(weights[r * stride + j]);
#pragma GCC unroll 4
        for (int i = 0; i < vecs; ++i) acc[r][i] = fma(weight, v[i], acc[r][i]);
      }
    }
    start = stop;
  }
}

// Outputs for head dims from first_dim on: each query's own first keys, then the keys [common_first, common_last) that all queries see,
// then each query's own last keys.
template <int queries, int vecs, class Number>
PARLEY_INLINE void weighted_values(const Pages<queries, Number>& values, const Query* query, const float* weights, int64_t stride,
                                   const float* totals, int64_t common_first, int64_t common_last, int64_t head_dim,
                                   int64_t first_dim) {
  const int64_t dims_left = head_dim - first_dim;
  Vec acc[queries][vecs];
#pragma GCC unroll 8
  for (int r = 0; r < queries; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < vecs; ++i) acc[r][i] = zero();
  }
  const Pages<1, Number> own{values.data, values.page_stride, values.page_table};
#pragma GCC unroll 8
  for (int r = 0; r < queries; ++r) {
    if (query[r].first_key >= common_first) continue;
    Vec start[1][vecs];
#pragma GCC unroll 4
    for (int i = 0; i < vecs; ++i) start[0][i] = zero();
    add_values<1, vecs>(own, weights + r * stride, stride, query[r].first_key, common_first, head_dim, first_dim, dims_left, start);
#pragma GCC unroll 4
    for (int i = 0; i < vecs; ++i) acc[r][i] = start[0][i];
  }
  add_values<queries, vecs>(values, weights, stride, common_first, common_last, head_dim, first_dim, dims_left, acc);
#pragma GCC unroll 8
  for (int r = 0; r < queries; ++r) {
    Vec rest[1][vecs];
#pragma GCC unroll 4
    for (int i = 0; i < vecs; ++i) rest[0][i] = acc[r][i];
    const int64_t first = query[r].first_key > common_last ? query[r].first_key : common_last;
    add_values<1, vecs>(own, weights + r * stride, stride, first, query[r].num_keys, head_dim, first_dim, dims_left, rest);
    const Vec total = broadcast(totals[r]);
#pragma GCC unroll 4
    for (int i = 0; i < vecs; ++i) {
      float* out = query[r].out + first_dim + i * kLanes;
      if (dims_left >= kLanes) {
        store(out, rest[0][i] / total);
      } else {
        store_partial(out, rest[0][i] / total, dims_left);
      }
    }
  }
}

// scratch: queries * (head_dim + stride) floats.
template <int queries, class Number>
void attend(const AttentionCall& call, const Query* query, int64_t kv_head, const int32_t* page_table, float* scratch) {
  constexpr int pages_at_once = queries * 4 <= kAttentionSums ? 4 : queries * 2 <= kAttentionSums ? 2 : 1;
  constexpr int vecs_at_once = PARLEY_LEVEL >= 2 ? (queries > 4 ? 2 : 4) : PARLEY_LEVEL == 1 ? (queries > 2 ? 1 : 2) : 1;
  const int64_t head_dim = call.head_dim;
  const int64_t head_numbers = head_dim * kPageTokens;
  const int64_t page_stride = call.num_kv_heads * head_numbers;
  const Pages<queries, Number> keys{static_cast<const Number*>(call.keys) + kv_head * head_numbers, page_stride, page_table};
  const Pages<queries, Number> values{static_cast<const Number*>(call.values) + kv_head * head_numbers, page_stride, page_table};

  int64_t most = query[0].num_keys;
  int64_t common_last = most;
  int64_t common_first = query[0].first_key;
  int64_t least = common_first;
  for (int r = 1; r < queries; ++r) {
    if (query[r].num_keys > most) most = query[r].num_keys;
    if (query[r].num_keys < common_last) common_last = query[r].num_keys;
    if (query[r].first_key > common_first) common_first = query[r].first_key;
    if (query[r].first_key < least) least = query[r].first_key;
  }
  if (common_first > common_last) common_first = common_last;  // windows shorter than the group
  const int64_t first_page = least / kPageTokens;
  const int64_t num_pages = (most + kPageTokens - 1) / kPageTokens;
  const int64_t stride = score_stride(most);

  float* packed_q = scratch;
  float* scores = scratch + (queries * head_dim + kLanes - 1) / kLanes * kLanes;
  for (int r = 0; r < queries; ++r) {
    for (int64_t d = 0; d < head_dim; ++d) packed_q[d * queries + r] = query[r].q[d];
  }

  Vec top[queries];
#pragma GCC unroll 8
  for (int r = 0; r < queries; ++r) top[r] = broadcast(-__builtin_inff());
  int64_t p = first_page;
  for (; p + pages_at_once <= num_pages; p += pages_at_once) {
    score_pages<queries, pages_at_once>(keys, query, packed_q, head_dim, call.scale, p, num_pages, scores, stride, top);
  }
  for (; p < num_pages; ++p) {
    score_pages<queries, 1>(keys, query, packed_q, head_dim, call.scale, p, num_pages, scores, stride, top);
  }

  float totals[queries];
  for (int r = 0; r < queries; ++r) {
    float* row = scores + r * stride;
    if (call.softcap > 0 || call.bias) top[r] = adjust_scores(call, query[r], first_page * kPageTokens, row);
    const Vec highest = broadcast(largest(top[r]));
    Vec total = zero();
    for (int64_t j = first_page * kPageTokens; j < query[r].num_keys; j += kPageTokens) {
      const Vec weight = exp(load(row + j) - highest);
      store(row + j, weight);
      total = total + weight;
    }
    totals[r] = sum(total);
  }

  int64_t dim = 0;
  for (; dim + vecs_at_once * kLanes <= head_dim; dim += vecs_at_once * kLanes) {
    weighted_values<queries, vecs_at_once>(values, query, scores, stride, totals, common_first, common_last, head_dim, dim);
  }
  for (; dim < head_dim; dim += kLanes) {
    weighted_values<queries, 1>(values, query, scores, stride, totals, common_first, common_last, head_dim, dim);
  }
}

using Attend = void (*)(const AttentionCall& call, const Query* query, int64_t kv_head, const int32_t* page_table, float* scratch);

template <class Number>
constexpr Attend kAttend[kAttentionRows] = {
    attend<1, Number>, attend<2, Number>,
#if PARLEY_LEVEL > 0
    attend<3, Number>, attend<4, Number>,
#endif
#if PARLEY_LEVEL > 1
    attend<5, Number>, attend<6, Number>, attend<7, Number>, attend<8, Number>,
#endif
};

// The column of AttentionRule::bias that belongs to key 0; it may lie outside the table.
PARLEY_INLINE int64_t column_of_first_key(const AttentionCall& call, int64_t position) {
  if (call.bias_by_key) return 0;
  return (call.num_keys > 0 ? call.bias_cols / 2 : call.bias_cols - 1) - position;
}

void attend_group(const AttentionCall& call, const RowGroup& group, int64_t kv_head, float* scratch) {
  const Attend* table = call.dtype == NumberType::float32   ? kAttend<float>
                        : call.dtype == NumberType::float16 ? kAttend<Fp16>
                                                            : kAttend<Bf16>;
  const int64_t sharing = heads_per_kv(call);
  const int64_t num_queries = (group.last_row - group.first_row) * sharing;
  const int32_t* page_table = call.page_table + call.sequences[group.first_row] * call.page_table_stride;
  Query query[kAttentionRows];
  int count = 0;
  for (int64_t i = 0; i < num_queries; ++i) {
    const int64_t row = group.first_row + i / sharing;
    const int64_t head = kv_head * sharing + i % sharing;
    const int64_t position = call.positions[row];
    query[count++] = {call.qkv + row * call.qkv_stride + head * call.head_dim,
                      call.out + row * call.out_stride + head * call.head_dim,
                      call.bias ? call.bias + head * call.bias_stride : nullptr,
                      column_of_first_key(call, position),
                      first_key_of(call, position),
                      num_keys_of(call, position)};
    if (count == kAttentionRows || i + 1 == num_queries) {
      table[count - 1](call, query, kv_head, page_table, scratch);
      count = 0;
    }
  }
}

int64_t attention_scratch(const AttentionCall& call, int64_t context) {
  return kAttentionRows * (call.head_dim + score_stride(context)) + kLanes;
}

// The row behind the last of the sequence that `row` belongs to.
PARLEY_INLINE int64_t end_of_sequence(const AttentionCall& call, int64_t row) {
  int64_t end = row + 1;
  while (end < call.num_rows && call.sequences[end] == call.sequences[row]) ++end;
  return end;
}

// Tasks lie in a row, [sequence][key/value head][group], each as long as its cost; a thread runs those that start in its share of the
// length. So a prompt's groups read one head's keys and values after each other, which stay in the second-level cache.
void attention(const AttentionCall& call, int64_t thread, int64_t num_threads, float* scratch) {
  int64_t total = 0;
  for (int64_t row = 0; row < call.num_rows;) {
    const RowGroup group = group_at(call, row);
    total += group.cost * call.num_kv_heads;
    row = group.last_row;
  }
  const int64_t begin = total / num_threads * thread + total % num_threads * thread / num_threads;
  const int64_t end = total / num_threads * (thread + 1) + total % num_threads * (thread + 1) / num_threads;
  int64_t start = 0;
  for (int64_t first_row = 0; first_row < call.num_rows && start < end;) {
    const int64_t last_row = end_of_sequence(call, first_row);
    for (int64_t head = 0; head < call.num_kv_heads; ++head) {
      for (int64_t row = first_row; row < last_row;) {
        const RowGroup group = group_at(call, row);
        if (start >= begin && start < end) attend_group(call, group, head, scratch);
        start += group.cost;
        row = group.last_row;
      }
    }
    first_row = last_row;
  }
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley

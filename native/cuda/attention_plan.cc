#include "cuda/attention_plan.h"

#include <algorithm>

#include "base/arithmetic.h"

namespace parley {
namespace cuda {
namespace {

// Which tiles of a kernel are cut into their splits: those of at least `least_splits` that alone would keep a block busy for more than
// 1 / `parts` of the time that all of them need.
struct Cutting {
  int64_t blocks;  // that a multiprocessor runs side by side, about
  int64_t parts;
  int64_t least_splits;
};
constexpr Cutting kNarrow{3, 8, 2};
// A prompt's tile leaves as many sums for each split as it has of its own, which are slow to merge.
constexpr Cutting kWide{1, 1, 4};

int64_t num_splits(const AttentionTask& tile) { return ceil_div(tile.last_key, kSplitKeys) - tile.first_key / kSplitKeys; }

class Planner {
 public:
  Planner(AttentionPlan& plan, const AttentionLimits& limits, int64_t num_kv_heads)
      : plan_(plan), limits_(limits), num_kv_heads_(num_kv_heads) {}

  // Tiles in any order → tasks. Whole tiles, the long ones, come first: the short tasks fill up what they leave.
  void add(std::vector<AttentionTask>& tiles, const Cutting& cutting) {
    const int64_t blocks = cutting.blocks * limits_.multiprocessors;
    std::stable_sort(tiles.begin(), tiles.end(), [](const AttentionTask& a, const AttentionTask& b) {
      return a.last_key - a.first_key > b.last_key - b.first_key;
    });
    int64_t total = 0;
    for (const AttentionTask& tile : tiles) total += num_splits(tile) * num_kv_heads_;
    std::vector<AttentionTask> whole, cut;
    for (const AttentionTask& tile : tiles) {
      const int64_t splits = num_splits(tile);
      const int64_t split_tasks = split_tasks_ + splits;
      const int64_t partials = plan_.num_partials + splits * tile.num_pairs;
      if (splits >= cutting.least_splits && cutting.parts * splits * blocks > total && split_tasks <= limits_.split_tasks && partials <= limits_.partials) {
        add_splits(tile, static_cast<int32_t>(splits), cut);
        split_tasks_ = split_tasks;
        plan_.num_partials = partials;
        ++plan_.num_split_tiles;
      } else {
        whole.push_back(tile);
      }
    }
    tiles = std::move(whole);
    tiles.insert(tiles.end(), cut.begin(), cut.end());
  }

 private:
  void add_splits(AttentionTask task, int32_t splits, std::vector<AttentionTask>& tasks) const {
    const AttentionTask tile = task;
    task.num_splits = splits;
    task.partial = static_cast<int32_t>(plan_.num_partials);
    task.tile = static_cast<int32_t>(plan_.num_split_tiles);
    for (task.split = 0; task.split < splits; ++task.split) {
      const auto start = static_cast<int32_t>((tile.first_key / kSplitKeys + task.split) * kSplitKeys);
      task.first_key = std::max(tile.first_key, start);
      task.last_key = std::min(tile.last_key, static_cast<int32_t>(start + kSplitKeys));
      tasks.push_back(task);
    }
  }

  AttentionPlan& plan_;
  const AttentionLimits& limits_;
  int64_t num_kv_heads_;
  int64_t split_tasks_ = 0;
};

// function(first, behind the last) of the rows of each sequence.
template <class Function>
void for_sequences(const AttentionRows& rows, const Function& function) {
  for (int64_t first = 0; first < rows.positions.size;) {
    int64_t last = first + 1;
    while (last < rows.positions.size && rows.host_sequences[last] == rows.host_sequences[first]) ++last;
    function(first, last);
    first = last;
  }
}

}  // namespace

int64_t count_tiles(const AttentionRows& rows, HeadLayout heads, int64_t pairs) {
  int64_t tiles = 0;
  for_sequences(rows, [&](int64_t first, int64_t last) { tiles += ceil_div((last - first) * (heads.num_heads / heads.num_kv_heads), pairs); });
  return tiles;
}

AttentionPlan plan_attention(const AttentionRows& rows, HeadLayout heads, const AttentionRule& rule, const AttentionLimits& limits) {
  AttentionPlan plan;
  const int64_t sharing = heads.num_heads / heads.num_kv_heads;
  for_sequences(rows, [&](int64_t first, int64_t last) {
    const int64_t pairs = (last - first) * sharing;
    for (int64_t pair = 0; pair < pairs;) {
      const int64_t count = std::min(pairs - pair, limits.wide_pairs);
      // Positions rise from row to row: the first row's window starts first, the last row sees farthest.
      const int64_t start = rows.host_positions[first + pair / sharing];
      const int64_t end = rows.host_positions[first + (pair + count - 1) / sharing];
      AttentionTask tile{};
      tile.row = static_cast<int32_t>(first);
      tile.sequence = rows.host_sequences[first];
      tile.first_pair = static_cast<int32_t>(pair);
      tile.num_pairs = static_cast<int32_t>(count);
      tile.first_key = static_cast<int32_t>(rule.window > 0 ? std::max<int64_t>(start - rule.window + 1, 0) : 0);
      tile.last_key = static_cast<int32_t>(rule.num_keys > 0 ? rule.num_keys : end + 1);
      tile.num_splits = 1;
      (count <= kNarrowPairs ? plan.narrow : plan.wide).push_back(tile);
      pair += count;
    }
  });
  Planner planner(plan, limits, heads.num_kv_heads);
  planner.add(plan.narrow, kNarrow);
  planner.add(plan.wide, kWide);
  return plan;
}

RowTiles tiles_of_row(HeadLayout heads, int64_t wide_pairs) {
  const int64_t pairs = heads.num_heads / heads.num_kv_heads;
  const int64_t rest = pairs % wide_pairs;
  const int64_t narrow = rest > 0 && rest <= kNarrowPairs ? 1 : 0;
  return {narrow, ceil_div(pairs, wide_pairs) - narrow};
}

}  // namespace cuda
}  // namespace parley

#include "cpu/cpu_backend.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/arithmetic.h"
#include "base/check.h"
#include "cpu/expert_rows.h"
#include "cpu/huge_pages.h"
#include "cpu/kernels/kernels.h"
#include "cpu/linear_pass.h"
#include "cpu/number_type.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "cpu/thread_shares.h"

namespace parley {
namespace {

static_assert(static_cast<int>(Epilogue::store) == 0 && static_cast<int>(Epilogue::accumulate) == 4, "linear.h switches on these");
static_assert(static_cast<int>(Epilogue::silu) == 5, "and on this one");
static_assert(static_cast<int>(Activation::gelu) == 0 && static_cast<int>(Activation::silu) == 3, "elementwise.h switches on these");
static_assert(kPageTokens == kPageSize, "");
static_assert(sizeof(TokenCount) == 2 * sizeof(int32_t), "the kernels read pairs");

// Work that one thread does faster alone than two after waking each other: about 2 microseconds.
constexpr int64_t kSmallNumbers = 16 * 1024;       // read and written once
constexpr int64_t kSmallScattered = 1024;          // written into a cache line of their own each
constexpr int64_t kSmallMultiplications = 64 * 1024;

// What a thread packs before it looks for more: two huge pages, because one that two threads touch first at the same time is cleared twice.
constexpr int64_t kPackTaskBytes = 4 << 20;

class CpuBackend final : public Backend {
 public:
  CpuBackend(Isa isa, int num_threads) : kernels_(kernels_for(isa)), pool_(num_threads), shares_(num_threads) {}

  void* allocate(int64_t bytes) override { return map_huge_pages(bytes); }
  void release(void* memory, int64_t bytes) noexcept override { unmap_huge_pages(memory, bytes); }
  void upload(void* to, const void* from, int64_t bytes) override { std::memcpy(to, from, static_cast<size_t>(bytes)); }
  void download(void* to, const void* from, int64_t bytes) override { std::memcpy(to, from, static_cast<size_t>(bytes)); }

  int64_t progress() const override { return pool_.time_ns(); }

  int64_t packed_bytes(int64_t rows, int64_t cols, DType dtype) const override {
    return checked_mul(checked_mul(ceil_div(rows, kPanelRows) * kPanelRows, cols), dtype_bytes(dtype));
  }

  void pack_rows(Span<const StoredRows> runs) override {
    struct Panel {
      const StoredRows* run;
      int64_t index;
    };
    std::vector<Panel> panels;
    std::vector<size_t> tasks;  // where each begins in panels
    int64_t task_bytes = kPackTaskBytes;
    int64_t numbers = 0;
    for (const StoredRows& run : runs) {
      const PackedWeight& weight = run.weight;
      check(run.first_row >= 0 && run.num_rows >= 0 && run.first_row <= weight.rows - run.num_rows, "rows ", run.first_row, " + ",
            run.num_rows, " do not fit into a weight of ", weight.rows);
      const int64_t end = run.num_rows == 0 ? 0 : ceil_div(run.first_row + run.num_rows, kPanelRows);
      for (int64_t panel = run.first_row / kPanelRows; panel < end; ++panel) {
        if (task_bytes >= kPackTaskBytes) {
          tasks.push_back(panels.size());
          task_bytes = 0;
        }
        panels.push_back({&run, panel});
        task_bytes += kPanelRows * weight.cols * dtype_bytes(weight.dtype);
      }
      numbers += run.num_rows * weight.cols;
    }
    const int64_t num_tasks = static_cast<int64_t>(tasks.size());
    tasks.push_back(panels.size());
    share_tasks(num_tasks, numbers < kSmallNumbers, [&](int, int64_t task) {
      for (size_t i = tasks[static_cast<size_t>(task)]; i < tasks[static_cast<size_t>(task) + 1]; ++i) {
        pack_panel(*panels[i].run, panels[i].index);
      }
    });
  }

  int64_t scratch_bytes(const ScratchLimits& limits) const override {
    const ScratchNumbers need = scratch_numbers(limits);
    int64_t numbers = 0;
    for (const int64_t count : {need.expert_outer, need.expert_inner, need.thread_scratch, need.thread_candidates, need.lists}) {
      numbers = checked_add(numbers, count);
    }
    return checked_add(checked_mul(numbers, 4), need.packed_tokens_bytes);
  }

  int64_t held_scratch_bytes() const override {
    int64_t bytes = 0;
    for (const Scratch* scratch : {&packed_tokens_, &expert_outer_, &expert_inner_, &thread_scratch_, &thread_candidates_, &lists_}) {
      bytes += scratch->bytes();
    }
    return bytes;
  }

  void reserve_scratch(const ScratchLimits& limits) override {
    const ScratchNumbers need = scratch_numbers(limits);
    packed_tokens_.reserve<char>(need.packed_tokens_bytes);
    expert_outer_.reserve<float>(need.expert_outer);
    expert_inner_.reserve<float>(need.expert_inner);
    thread_scratch_.reserve<float>(need.thread_scratch);
    thread_candidates_.reserve<int32_t>(need.thread_candidates);
    lists_.reserve<int32_t>(need.lists);
  }

  ListBlock begin_block(int64_t count) override {
    int32_t* lists = lists_.reserve<int32_t>(count);
    return {lists, lists};
  }

  void embed(Matrix<float> out, const PackedWeight& table, Span<const int32_t> tokens, Span<const float> chosen, int64_t first,
             float scale) override {
    share(tokens.size, tokens.size < 2, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = (is_chosen(tokens[t]) ? static_cast<int32_t>(chosen[tokens[t] - kChosenToken]) : tokens[t]) - first;
        if (row < 0 || row >= table.rows) {
          std::fill_n(out.row(t), table.cols, 0.0f);
          continue;
        }
        kernels_.embed(out.row(t), table.data, number_type(table.dtype), table.cols, row);
        if (scale != 1.0f) {
          for (int64_t i = 0; i < table.cols; ++i) out.row(t)[i] *= scale;
        }
      }
    });
  }

  void sum(Matrix<float> out, Span<const Matrix<const float>> parts, Span<const float> bias, Epilogue epilogue) override {
    share(out.rows, out.rows * out.cols * (parts.size + 1) < 2 * kSmallNumbers, [&](int64_t begin, int64_t end) {
      const float* rows[kMaxParts];
      for (int64_t t = begin; t < end; ++t) {
        for (int64_t p = 0; p < parts.size; ++p) rows[p] = parts[p].row(t);
        kernels_.sum(out.row(t), rows, parts.size, bias.data, out.cols, epilogue == Epilogue::accumulate);
      }
    });
  }

  void take_rows(Matrix<float> out, Matrix<const float> x, Span<const int32_t> rows) override {
    share(rows.size, rows.size * x.cols < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) std::copy_n(x.row(rows[r]), x.cols, out.row(r));
    });
  }

  void layer_norm(Matrix<float> out, Matrix<const float> x, Span<const float> weight, Span<const float> bias, int64_t width,
                  float eps) override {
    each_run(x, width, [&](int64_t t, int64_t i) {
      kernels_.layer_norm(out.row(t) + i, x.row(t) + i, part_of(weight, width, i), part_of(bias, width, i), width, eps);
    });
  }

  void rms_norm(Matrix<float> out, Matrix<const float> x, Span<const float> weight, int64_t width, float eps) override {
    each_run(x, width, [&](int64_t t, int64_t i) {
      kernels_.rms_norm(out.row(t) + i, x.row(t) + i, part_of(weight, width, i), width, eps);
    });
  }

  void gate(Output rows, Matrix<const float> x, Activation activation) override {
    const Matrix<float> out = rows.floats();
    share(x.rows, x.rows * x.cols < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) kernels_.gate(out.row(t), x.row(t), out.cols, static_cast<int32_t>(activation));
    });
  }

  void scale(Matrix<float> x, float factor) override {
    share(x.rows, x.rows * x.cols < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) std::for_each(x.row(t), x.row(t) + x.cols, [factor](float& number) { number *= factor; });
    });
  }

  void softcap(Matrix<float> x, float cap) override {
    share(x.rows, x.rows * x.cols < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) kernels_.softcap(x.row(t), x.cols, cap);
    });
  }

  void linear(Span<const Product> products) override {
    if (products[0].x.rows == 0) return;
    const LinearPass pass(kernels_, products, packed_tokens_);
    share(pass.num_runs(), pass.num_runs() * pass.run_numbers() < kSmallNumbers,
          [&](int64_t begin, int64_t end) { pass.pack(begin, end); });
    const int64_t threads = pass.multiplications() < kSmallMultiplications ? 1 : pool_.num_threads();
    const int64_t scratch_numbers = kernels_.linear_scratch;
    float* scratch = thread_scratch_.reserve<float>(scratch_numbers * pool_.num_threads());
    shares_.share_out(pass.multiplications(), threads);
    share_threads(threads, threads == 1, [&](int thread, int64_t, int64_t) {
      shares_.each_piece(thread, pass.piece(), [&](int64_t first, int64_t last) {
        pass.multiply(first, last, scratch + thread * scratch_numbers);
      });
    });
  }

  void route(Matrix<int32_t> experts, Matrix<float> shares, Matrix<const float> logits, bool normalise) override {
    share(logits.rows, logits.rows * logits.cols < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        kernels_.route(experts.row(t), shares.row(t), logits.row(t), logits.cols, experts.cols, normalise);
      }
    });
  }

  void mix_experts(Matrix<float> out, Matrix<const float> x, Matrix<const int32_t> experts, Matrix<const float> shares,
                   Span<const ExpertWeights> weights, Activation activation) override {
    if (x.rows == 0) return;
    expert_rows_.sort(experts, weights.size);
    const int64_t num_rows = expert_rows_.num_rows();
    const int64_t size = weights[0].down.cols;
    const Matrix<float> rows(expert_outer_.reserve<float>(num_rows * x.cols), num_rows, x.cols);
    const Matrix<float> gate_up(expert_inner_.reserve<float>(num_rows * 2 * size), num_rows, 2 * size);
    const Matrix<float> hidden(gate_up.data, num_rows, size, gate_up.stride);  // each number replaces the gate that it comes from
    share(num_rows, num_rows * x.cols < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) std::copy_n(x.row(expert_rows_.token_of(r)), x.cols, rows.row(r));
    });
    linear_by_expert(gate_up, rows, [&](int64_t e) -> const PackedWeight& { return weights[e].gate_up; });
    gate(hidden, gate_up, activation);
    linear_by_expert(rows, hidden, [&](int64_t e) -> const PackedWeight& { return weights[e].down; });
    share(out.rows, num_rows * out.cols < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        kernels_.add_shares(out.row(t), rows.data, rows.stride, expert_rows_.rows_of(t), shares.row(t), experts.cols, out.cols);
      }
    });
  }

  void rope(Matrix<float> qkv, Span<const int32_t> positions, Matrix<const float> cos_sin, HeadLayout heads,
            RopeLayout layout) override {
    const int64_t half = heads.rope_dims / 2;
    if (half == 0) return;
    share(qkv.rows, qkv.rows * heads.query_size() < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        kernels_.rope(qkv.row(t), heads.num_heads + heads.num_kv_heads, heads.head_dim, cos_sin.row(positions[t]), half,
                      layout == RopeLayout::interleaved);
      }
    });
  }

  void write_kv(const KvLayer& kv, Matrix<const float> qkv, Span<const int32_t> slots, HeadLayout heads) override {
    share(qkv.rows, qkv.rows * heads.kv_size() < kSmallScattered, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        if (slots[t] < 0) continue;
        const float* key = qkv.row(t) + heads.query_size();
        kernels_.write_kv(kv.keys, kv.values, number_type(kv.dtype), key, key + heads.kv_size(), heads.num_kv_heads,
                          heads.head_dim, slots[t]);
      }
    });
  }

  void copy_page(const KvLayer& kv, int64_t from, int64_t to, HeadLayout heads) override {
    const int64_t bytes = heads.kv_size() * kPageSize * dtype_bytes(kv.dtype);
    for (void* pages : {kv.keys, kv.values}) {
      char* first = static_cast<char*>(pages);
      std::memcpy(first + to * bytes, first + from * bytes, static_cast<size_t>(bytes));
    }
  }

  // The kernels read the rows themselves.
  void plan_attention(const AttentionRows&, HeadLayout, const AttentionRule&) override {}

  void attention(Output output, Matrix<const float> qkv, const KvLayer& kv, const AttentionRows& rows, HeadLayout heads,
                 const AttentionRule& rule) override {
    const Matrix<float> out = output.floats();
    if (out.rows == 0) return;
    const AttentionCall call{out.data,
                             out.stride,
                             qkv.data,
                             qkv.stride,
                             out.rows,
                             kv.keys,
                             kv.values,
                             number_type(kv.dtype),
                             rows.positions.data,
                             rows.sequences.data,
                             rows.page_table.data,
                             rows.page_table.stride,
                             heads.num_heads,
                             heads.num_kv_heads,
                             heads.head_dim,
                             rule.scale,
                             rule.softcap,
                             rule.bias.data,
                             rule.bias.stride,
                             rule.bias.cols,
                             rule.bias_by_key,
                             rule.window,
                             rule.num_keys};
    int64_t context = 0;
    int64_t keys = 0;
    for (const int32_t position : rows.positions) {
      const int64_t num_keys = rule.num_keys > 0 ? rule.num_keys : position + 1;
      context = std::max(context, num_keys);
      keys += num_keys;
    }
    const int64_t scratch_numbers = aligned(kernels_.attention_scratch(call, context));
    float* scratch = thread_scratch_.reserve<float>(scratch_numbers * pool_.num_threads());
    const int threads = keys * heads.query_size() < kSmallNumbers ? 1 : pool_.num_threads();
    const auto run = [&](int thread) { kernels_.attention(call, thread, threads, scratch + thread * scratch_numbers); };
    if (threads == 1) {
      run(0);
    } else {
      pool_.run(run);
    }
  }

  void sample(Matrix<float> logits, Span<float> chosen, Span<const SampleRow> rows, int64_t num_sampled_ids, Span<int32_t> tokens,
              Span<float> logprobs, Span<int32_t> ranks, Matrix<int32_t> top_tokens, Matrix<float> top_logprobs) override {
    // Weights and raw logits of every thread, each from a 64-byte boundary on.
    const int64_t vocab = aligned(logits.cols);
    float* scratch = thread_scratch_.reserve<float>(2 * vocab * pool_.num_threads());
    int32_t* candidates = thread_candidates_.reserve<int32_t>(vocab * pool_.num_threads());
    share_threads(rows.size, false, [&](int thread, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const SamplingParams& params = *rows[r].params;
        SampleCall call;
        call.logits = logits.row(r);
        call.vocab = logits.cols;
        call.num_sampled_ids = num_sampled_ids;
        call.temperature = params.temperature;
        call.top_p = params.top_p;
        call.top_k = params.top_k;
        call.min_p = params.min_p;
        call.presence_penalty = static_cast<float>(params.presence_penalty);
        call.frequency_penalty = static_cast<float>(params.frequency_penalty);
        call.repetition_penalty = static_cast<float>(params.repetition_penalty);
        call.seed = params.seed;
        call.choice = params.choice;
        call.position = rows[r].position;
        call.num_logprobs = std::min(params.num_logprobs, top_tokens.cols);
        call.bias_ids = params.bias_ids.data();
        call.bias_values = params.bias_values.data();
        call.num_bias = static_cast<int64_t>(std::min(params.bias_ids.size(), params.bias_values.size()));
        call.counts = reinterpret_cast<const int32_t*>(rows[r].counts.data);
        call.num_counts = rows[r].counts.size;
        call.allowed = params.allowed_token_ids.data();
        call.num_allowed = static_cast<int64_t>(params.allowed_token_ids.size());
        call.forbidden = rows[r].forbidden.data;
        call.num_forbidden = rows[r].forbidden.size;
        call.reported = params.logprob_token_ids.data();
        call.num_reported = std::min(static_cast<int64_t>(params.logprob_token_ids.size()), top_tokens.cols);
        call.raw = scratch + thread * 2 * vocab;
        call.weights = call.raw + vocab;
        call.candidates = candidates + thread * vocab;
        call.top_tokens = top_tokens.data ? top_tokens.row(r) : nullptr;
        call.top_logprobs = top_logprobs.data ? top_logprobs.row(r) : nullptr;
        kernels_.sample(call);
        tokens[r] = call.token;
        chosen[r] = static_cast<float>(call.token);
        logprobs[r] = call.logprob;
        ranks[r] = call.rank;
      }
    });
  }

  void score(Matrix<float> logits, Span<const ScoreRow> rows, Span<float> logprobs, Span<int32_t> ranks, Matrix<int32_t> top_tokens,
             Matrix<float> top_logprobs) override {
    share_threads(rows.size, false, [&](int, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t wanted = std::min<int64_t>(rows[r].num_top, top_tokens.cols);
        ScoreCall call{logits.row(r), logits.cols, rows[r].token, wanted, 0, 0, nullptr, nullptr};
        if (wanted > 0) {
          call.top_tokens = top_tokens.row(r);
          call.top_logprobs = top_logprobs.row(r);
        }
        kernels_.score(call);
        logprobs[r] = call.logprob;
        ranks[r] = call.rank;
      }
    });
  }

 private:
  // What the ops reserve at most; see linear, mix_experts, attention and sample.
  struct ScratchNumbers {
    int64_t packed_tokens_bytes;
    int64_t expert_outer;
    int64_t expert_inner;
    int64_t thread_scratch;
    int64_t thread_candidates;
    int64_t lists;
  };

  ScratchNumbers scratch_numbers(const ScratchLimits& limits) const {
    AttentionCall attention{};
    attention.head_dim = limits.head_dim;
    const int64_t of_a_thread =
        std::max({kernels_.linear_scratch, aligned(kernels_.attention_scratch(attention, limits.context)), 2 * aligned(limits.vocab)});
    const auto packed_bytes = [&](int64_t rows, int64_t cols) {
      checked_mul(checked_mul(rows, checked_add(cols, kPanelRows)), 8);  // no instruction set's layout takes more
      return kernels_.packed_tokens_bytes(rows, cols);
    };
    return {std::max(packed_bytes(limits.rows, limits.pass_cols),
                     packed_bytes(limits.expert_rows, std::max(limits.expert_hidden, limits.expert_size))),
            checked_mul(limits.expert_rows, limits.expert_hidden), checked_mul(limits.expert_rows, 2 * limits.expert_size),
            checked_mul(of_a_thread, limits.threads), checked_mul(aligned(limits.vocab), limits.threads), limits.list_numbers};
  }

  // Up to a 64-byte boundary of 32-bit numbers.
  static int64_t aligned(int64_t count) { return ceil_div(count, 16) * 16; }

  // function(thread, begin, end) for every thread's even share of `count` things; the caller alone does small work.
  template <class Function>
  void share_threads(int64_t count, bool small, const Function& function) {
    const int64_t threads = std::min<int64_t>(pool_.num_threads(), count);
    if (count == 0) return;
    if (small || threads <= 1) {
      function(0, 0, count);
    } else {
      pool_.run([&](int thread) {
        if (thread < threads) function(thread, count * thread / threads, count * (thread + 1) / threads);
      });
    }
  }

  // function(thread, task) for every task, each by the thread that comes to it first.
  template <class Function>
  void share_tasks(int64_t num_tasks, bool small, const Function& function) {
    std::atomic<int64_t> next_task{0};
    share_threads(std::min<int64_t>(num_tasks, pool_.num_threads()), small, [&](int thread, int64_t, int64_t) {
      for (int64_t task = next_task++; task < num_tasks; task = next_task++) function(thread, task);
    });
  }

  // The rows of `run` that lie in one panel of its weight.
  void pack_panel(const StoredRows& run, int64_t panel) const {
    const PackedWeight& weight = run.weight;
    const int64_t number_bytes = dtype_bytes(weight.dtype);
    char* data = static_cast<char*>(weight.data) + panel * kPanelRows * weight.cols * number_bytes;
    const int64_t start = std::max(run.first_row, panel * kPanelRows);
    const int64_t stop = std::min(run.first_row + run.num_rows, (panel + 1) * kPanelRows);
    kernels_.pack_panel(data, number_type(weight.dtype), weight.cols, start - panel * kPanelRows, stop - start,
                        static_cast<const char*>(run.data) + (start - run.first_row) * run.stride_bytes, number_type(run.dtype),
                        run.stride_bytes);
    const int64_t padding = (panel + 1) * kPanelRows - weight.rows;
    if (stop == weight.rows && padding > 0) {
      for (int64_t k = 0; k < weight.cols; ++k) {
        std::memset(data + ((k + 1) * kPanelRows - padding) * number_bytes, 0, static_cast<size_t>(padding * number_bytes));
      }
    }
  }

  // out = x W^T with the weight of each row's expert, the rows being sorted by expert. All experts' tasks are one list, which the threads
  // share as they come: experts have few rows or many.
  template <class WeightOf>
  void linear_by_expert(Matrix<float> out, Matrix<const float> x, const WeightOf& weight_of) {
    char* packed = packed_tokens_.reserve<char>(kernels_.packed_tokens_bytes(x.rows, x.cols));
    int64_t packed_bytes = 0;
    expert_calls_.clear();
    expert_tasks_.clear();
    int64_t num_tasks = 0;
    for (int64_t e = 0; e < expert_rows_.num_experts(); ++e) {
      const int64_t first = expert_rows_.first(e);
      const int64_t count = expert_rows_.count(e);
      if (count == 0) continue;
      const Product product{{out.row(first), count, out.cols, out.stride}, {x.row(first), count, x.cols, x.stride}, weight_of(e), {},
                            Epilogue::store};
      const LinearPlan plan = kernels_.plan_linear(number_type(product.weight.dtype), count, x.cols);
      expert_calls_.push_back(linear_call(product, plan, packed + packed_bytes));
      packed_bytes += plan.packed_bytes;
      num_tasks += ceil_div(num_linear_tasks(expert_calls_.back()), plan.piece_tasks);
      expert_tasks_.push_back(num_tasks);
    }
    share(static_cast<int64_t>(expert_calls_.size()), x.rows * x.cols < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const LinearCall& call = expert_calls_[static_cast<size_t>(i)];
        const int64_t first = (call.out - out.data) / out.stride;
        if (call.tokens == x.row(first)) continue;
        kernels_.pack_tokens(packed + (static_cast<const char*>(call.tokens) - packed), call.dtype, x.row(first), x.stride,
                             call.num_tokens, call.num_groups, x.cols, 0, x.cols);
      }
    });
    const int64_t scratch_numbers = kernels_.linear_scratch;
    float* scratch = thread_scratch_.reserve<float>(scratch_numbers * pool_.num_threads());
    share_tasks(num_tasks, x.rows * x.cols * out.cols < kSmallMultiplications, [&](int thread, int64_t task) {
      const auto i = std::upper_bound(expert_tasks_.begin(), expert_tasks_.end(), task) - expert_tasks_.begin();
      const LinearCall& call = expert_calls_[static_cast<size_t>(i)];
      const int64_t first = (task - (i == 0 ? 0 : expert_tasks_[static_cast<size_t>(i - 1)])) * call.piece_tasks;
      kernels_.linear(call, first, std::min(first + call.piece_tasks, num_linear_tasks(call)), scratch + thread * scratch_numbers);
    });
  }

  // function(row, first column) for every run of `width` numbers of x.
  template <class Function>
  void each_run(Matrix<const float> x, int64_t width, const Function& function) {
    share(x.rows, x.rows * x.cols < kSmallNumbers, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        for (int64_t i = 0; i < x.cols; i += width) function(t, i);
      }
    });
  }

  // A norm's weight or bias for the run at column `first`: none, the same for all runs, or the run's own.
  static const float* part_of(Span<const float> numbers, int64_t width, int64_t first) {
    return numbers.empty() ? nullptr : numbers.data + (numbers.size == width ? 0 : first);
  }

  template <class Function>
  void share(int64_t count, bool small, const Function& function) {
    share_threads(count, small, [&](int, int64_t begin, int64_t end) { function(begin, end); });
  }

  const Kernels& kernels_;
  ThreadPool pool_;
  ThreadShares shares_;        // linear: the multiplications of a pass
  Scratch packed_tokens_;      // linear: those of one pass, shared
  Scratch thread_scratch_;     // a part for each thread
  Scratch thread_candidates_;  // sample: the same
  Scratch lists_;              // of a block
  // mix_experts:
  ExpertRows expert_rows_;
  Scratch expert_outer_;                  // of each row the token, then what its expert makes of it
  Scratch expert_inner_;                  // of each row gate and up, then the hidden layer
  std::vector<LinearCall> expert_calls_;  // of the experts that have rows
  std::vector<int64_t> expert_tasks_;     // in how many pieces these calls and all before them are cut
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(Isa isa, int num_threads) { return std::make_unique<CpuBackend>(isa, num_threads); }

}  // namespace parley

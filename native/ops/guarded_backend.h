// For tests: memory of ops that is as far away as a device's. Between the methods of a backend nobody can read or write what it allocated
// (who tries is stopped by the system), and what is in it at first is NaN. Steps that only decode are filled up, and steps are chained.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "base/arithmetic.h"
#include "base/check.h"
#include "ops/backend.h"

namespace parley {

// Everything but the ops.
class GuardedMemory : public Backend {
 public:
  // backend: gives out whole pages of memory of its own, as the CPU's does.
  explicit GuardedMemory(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  ~GuardedMemory() override {
    if (lists_ != nullptr) backend_->release(lists_, memory_[lists_]);
  }

  void* allocate(int64_t bytes) override {
    void* memory = backend_->allocate(bytes);
    std::memset(memory, 0xff, static_cast<size_t>(bytes));
    memory_[memory] = bytes;
    protect(PROT_NONE);
    return memory;
  }
  void release(void* memory, int64_t bytes) noexcept override {
    memory_.erase(memory);
    backend_->release(memory, bytes);
  }
  void upload(void* to, const void* from, int64_t bytes) override {
    const Open open(*this);
    backend_->upload(to, from, bytes);
  }
  void download(void* to, const void* from, int64_t bytes) override {
    const Open open(*this);
    backend_->download(to, from, bytes);
  }
  int64_t packed_bytes(int64_t rows, int64_t cols, DType dtype) const override { return backend_->packed_bytes(rows, cols, dtype); }
  void pack_rows(Span<const StoredRows> runs) override {
    const Open open(*this);
    backend_->pack_rows(runs);
  }
  int64_t scratch_bytes(const ScratchLimits& limits) const override { return backend_->scratch_bytes(limits); }
  int64_t held_scratch_bytes() const override { return backend_->held_scratch_bytes(); }
  void reserve_scratch(const ScratchLimits& limits) override {
    backend_->reserve_scratch(limits);
    if (lists_ == nullptr) lists_ = allocate(limits.list_numbers * static_cast<int64_t>(sizeof(int32_t)));
  }
  bool is_asynchronous() const override { return true; }  // as for who calls: steps follow each other as on a GPU
  StepShape padded(const StepShape& shape) const override {
    const auto up = [](int64_t count) { return ceil_div(count, 3) * 3; };
    return {up(shape.rows), up(shape.max_pages), up(shape.max_encoder_pages)};
  }
  // Throws Error if a replay of what was recorded would be something else.
  void record(const StepShape& shape, const std::function<void()>& ops) override {
    calls_.clear();
    ops();
    const auto& known = recorded_.emplace(std::make_tuple(shape.rows, shape.max_pages, shape.max_encoder_pages), calls_).first->second;
    check(known == calls_, "ops of a step of ", shape.rows, " rows: expected the same with the same arguments each time");
  }
  ListBlock begin_block(int64_t count) override {
    host_lists_.resize(static_cast<size_t>(count));
    return {host_lists_.data(), static_cast<const int32_t*>(lists_)};
  }
  void send_block() override { upload(lists_, host_lists_.data(), static_cast<int64_t>(host_lists_.size() * sizeof(int32_t))); }
  void plan_attention(const AttentionRows& rows, HeadLayout heads, const AttentionRule& rule) override {
    backend_->plan_attention(rows, heads, rule);
  }

 protected:
  // While there is one, the memory is open.
  struct Open {
    explicit Open(GuardedMemory& memory) : memory(memory) { memory.protect(PROT_READ | PROT_WRITE); }
    ~Open() { memory.protect(PROT_NONE); }
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;
    GuardedMemory& memory;
  };

  // A call, for record(): where its numbers lie.
  template <class... Args>
  void note(const char* op, const Args&... args) {
    calls_.push_back(reinterpret_cast<intptr_t>(op));
    (note(args), ...);
  }

  const std::unique_ptr<Backend> backend_;

 private:
  template <class T>
  void note(const Span<T>& span) {
    calls_.insert(calls_.end(), {reinterpret_cast<intptr_t>(span.data), span.size});
  }
  template <class T>
  void note(const Matrix<T>& matrix) {
    calls_.insert(calls_.end(), {reinterpret_cast<intptr_t>(matrix.data), matrix.rows, matrix.cols, matrix.stride});
  }
  template <class Void>
  void note(const TypedMatrix<Void>& matrix) {
    calls_.insert(calls_.end(), {reinterpret_cast<intptr_t>(matrix.data), matrix.rows, matrix.cols, matrix.stride});
  }
  void note(const PackedWeight& weight) { calls_.push_back(reinterpret_cast<intptr_t>(weight.data)); }
  void note(const Span<const Product>& products) {  // the list itself may lie elsewhere each time
    for (const Product& product : products) {
      note(product.out);
      note(product.x);
      note(product.weight);
      note(product.bias);
    }
  }
  void note(const KvLayer& kv) { calls_.push_back(reinterpret_cast<intptr_t>(kv.keys)); }
  void note(const AttentionRows& rows) {
    note(rows.positions);
    note(rows.sequences);
    note(rows.page_table);
    calls_.push_back(rows.plan);
  }
  template <class T>
  void note(const T&) {}  // what the model decides

  void protect(int access) {
    for (const auto& [memory, bytes] : memory_) mprotect(memory, static_cast<size_t>(bytes), access);
  }

  std::map<void*, int64_t> memory_;  // what is allocated
  void* lists_ = nullptr;
  std::vector<int32_t> host_lists_;
  std::vector<intptr_t> calls_;      // of ops since the last record() began
  std::map<std::tuple<int64_t, int64_t, int64_t>, std::vector<intptr_t>> recorded_;  // by shape
};

// One class for each op, of which the backend is put together: so an op is forwarded with whatever arguments ops.def gives it.
#define OP(name, arguments)                                                         \
  template <class Method>                                                           \
  class Guarded_##name;                                                             \
  template <class... Args>                                                          \
  class Guarded_##name<void (Backend::*)(Args...)> : public virtual GuardedMemory { \
    void name(Args... args) final {                                                 \
      const Open open(*this);                                                       \
      note(#name, args...);                                                         \
      backend_->name(args...);                                                      \
    }                                                                               \
  };
#include "ops/ops.def"
#undef OP

#define OP(name, arguments) , Guarded_##name<decltype(&Backend::name)>
class GuardedBackend final : public virtual GuardedMemory
#include "ops/ops.def"
{
 public:
  explicit GuardedBackend(std::unique_ptr<Backend> backend) : GuardedMemory(std::move(backend)) {}
};
#undef OP

}  // namespace parley

#include "model/rank_group.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <mutex>
#include <numeric>

#include "model/checked.h"
#include "model/device.h"
#include "model/memory.h"

namespace parley {

RankGroup::RankGroup(const ModelSource& source, const EngineOptions& options, const std::function<void(double)>& progress)
    : spec_(checked(source.spec)),
      options_(options),
      plan_(plan_memory(spec_, options, *make_backend(options, 0, 1))),
      workers_(std::make_shared<Workers>(static_cast<size_t>(options.tensor_parallel_size))) {
  options_.max_model_len = static_cast<int64_t>(plan_.max_model_len);
  if (workers_->size() > 1) threads_ = std::make_unique<RankThreads>(options.tensor_parallel_size, options.rank_stopped_after_ms);
  load(source, progress);
}

// What a GPU that has stopped holds is left to it: to give it back waits for the GPU.
RankGroup::~RankGroup() {
  if (!stopped().empty()) new std::shared_ptr<Workers>(workers_);
}

void RankGroup::load(const ModelSource& source, const std::function<void(double)>& progress) {
  const auto place = threads_ == nullptr ? nullptr : make_meeting_place(options_);
  std::mutex mutex;
  std::vector<double> fractions(workers_->size());
  each([&](int64_t rank) {
    const auto add_progress = [&](double fraction) {
      const std::lock_guard<std::mutex> lock(mutex);
      fractions[static_cast<size_t>(rank)] = fraction;
      progress(std::accumulate(fractions.begin(), fractions.end(), 0.0) / static_cast<double>(fractions.size()));
    };
    (*workers_)[static_cast<size_t>(rank)] = std::make_unique<Worker>(source, options_, rank, num_pages(), place.get(), add_progress);
  });
  for (size_t rank = 0; threads_ != nullptr && rank < workers_->size(); ++rank) {
    threads_->watch(static_cast<int64_t>(rank), (*workers_)[rank]->collective(), (*workers_)[rank]->backend());
  }
}

void RankGroup::each(std::function<void(int64_t rank)> task) {
  if (threads_ == nullptr) {
    task(0);
  } else {
    threads_->run(std::move(task));
  }
}

void RankGroup::run(const Step& step, StepResult& result, const std::function<StepRun()>& meanwhile) {
  result.resize(step.samples.size(), step.scores.size());
  const bool halts = ++num_steps_ == options_.rank_stops_in_step;
  const bool is_begun = begun_ == &step;
  begun_ = nullptr;
  StepRun next;
  const auto choose_next = [&] {
    next = meanwhile();
    if (next.step != nullptr) next.result->resize(next.step->samples.size(), next.step->scores.size());
    return next;
  };
  if (threads_ == nullptr) {
    workers_->front()->run(step, result, is_begun, choose_next);
  } else {
    // The ranks are told by this thread what comes next, where they can begin it.
    const auto told = std::make_shared<std::promise<StepRun>>();
    const std::function<StepRun()> ask = [future = told->get_future().share()] { return future.get(); };
    const auto task = [workers = workers_, &step, &result, halts, is_begun, ask = chains() ? ask : [] { return StepRun(); }](int64_t rank) {
      if (halts && rank + 1 == static_cast<int64_t>(workers->size())) std::promise<void>().get_future().wait();
      (*workers)[static_cast<size_t>(rank)]->run(step, result, is_begun, ask);
    };
    threads_->run(task, [&] {
      try {
        told->set_value(choose_next());
      } catch (...) {
        told->set_value({});
        throw;
      }
    });
  }
  begun_ = next.step;
  if (options_.check_integrity && threads_ != nullptr && step.num_rows() > 0) check_agreement();
}

std::vector<float> RankGroup::logits(const Step& step) {
  std::vector<float> all(static_cast<size_t>(step.num_rows() * spec_.vocab_size));
  each([workers = workers_, &step, &all](int64_t rank) { (*workers)[static_cast<size_t>(rank)]->logits(step, all.data()); });
  if (options_.check_integrity) check_agreement();
  return all;
}

// Every rank has the whole residual stream, and none may have other bits of it.
void RankGroup::check_agreement() {
  std::vector<std::vector<float>> hidden(workers_->size());
  each([&](int64_t rank) { hidden[static_cast<size_t>(rank)] = (*workers_)[static_cast<size_t>(rank)]->hidden(); });
  for (size_t rank = 1; rank < hidden.size(); ++rank) {
    check(hidden[rank].size() == hidden[0].size() &&
              std::memcmp(hidden[rank].data(), hidden[0].data(), hidden[0].size() * sizeof(float)) == 0,
          "rank ", rank, " has other hidden states than rank 0");
  }
}

std::string RankGroup::stopped() const {
  std::string why = threads_ == nullptr ? "" : threads_->stopped();
  for (size_t rank = 0; why.empty() && rank < workers_->size(); ++rank) why = (*workers_)[rank]->backend()->broken();
  return why;
}

std::string RankGroup::take_warning() {
  for (const auto& worker : *workers_) {
    const std::string warning = worker->take_warning();
    if (!warning.empty()) return warning;
  }
  return {};
}

std::vector<float> RankGroup::take_idle_us() { return workers_->front()->take_idle_us(); }

int64_t RankGroup::held_scratch_bytes() const {
  int64_t bytes = 0;
  for (const auto& worker : *workers_) bytes += worker->held_scratch_bytes();
  return bytes;
}

EngineInfo RankGroup::info() const {
  EngineInfo info;
  for (const auto& worker : *workers_) {
    info.num_parameters = static_cast<double>(worker->weights().num_parameters);
    info.weight_bytes += static_cast<double>(worker->weights().num_bytes);
    info.num_threads += static_cast<double>(worker->num_threads());
  }
  info.kv_cache_bytes = plan_.num_pages * plan_.page_bytes;
  info.workspace_bytes = plan_.workspace_bytes;
  info.num_pages = plan_.num_pages;
  info.page_size = plan_.page_size;
  info.max_model_len = plan_.max_model_len;
  info.tensor_parallel_size = static_cast<double>(workers_->size());
  if (threads_ != nullptr) info.rank_meeting = workers_->front()->collective()->meeting();
  info.device = options_.device;
  info.isa = isa_of(options_);
  info.dtype = options_.dtype;
  return info;
}

}  // namespace parley

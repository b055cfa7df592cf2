#include "binding/test_ranks.h"

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/thread_time.h"
#include "binding/read_contract.h"
#include "cpu/cpu_backend.h"
#include "model/checked.h"
#include "model/rank_threads.h"
#include "model/shard.h"
#include "ops/shared_collective.h"

namespace parley {
namespace {

// function(info) with native errors turned into JavaScript's.
template <class Function>
Napi::Function guarded(Napi::Env env, const Function& function) {
  return Napi::Function::New(env, [function](const Napi::CallbackInfo& info) -> Napi::Value {
    try {
      return function(info);
    } catch (const Error& error) {
      throw Napi::Error::New(info.Env(), error.what());
    }
  });
}

int64_t read_count(Napi::Value value, const char* where) {
  check(value.IsNumber() && value.As<Napi::Number>().Int64Value() >= 0, where, ": expected a count");
  return value.As<Napi::Number>().Int64Value();
}

Napi::Array write_range(Napi::Env env, Range range) {
  Napi::Array pair = Napi::Array::New(env, 2);
  pair.Set(0u, Napi::Number::New(env, static_cast<double>(range.first)));
  pair.Set(1u, Napi::Number::New(env, static_cast<double>(range.count)));
  return pair;
}

Napi::Value test_shards(const Napi::CallbackInfo& info) {
  const ModelSpec spec = read_contract<ModelSpec>(info[0], "spec");
  Napi::Array list = Napi::Array::New(info.Env());
  for (const Shard& shard : make_shards(checked(spec), read_count(info[1], "numRanks"))) {
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("heads", write_range(info.Env(), shard.heads));
    object.Set("kv_heads", write_range(info.Env(), shard.kv_heads));
    object.Set("mlp", write_range(info.Env(), shard.mlp));
    object.Set("expert", write_range(info.Env(), shard.expert));
    object.Set("vocab", write_range(info.Env(), shard.vocab));
    list.Set(list.Length(), object);
  }
  return list;
}

struct Ranks {
  Ranks(Isa isa, int64_t num_ranks, int64_t stopped_after_ms) : threads(num_ranks, stopped_after_ms) {
    const auto place = make_shared_place(num_ranks);
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      backends.push_back(make_cpu_backend(isa, 1));
      collectives.push_back(place->join(rank, *backends.back()));
      threads.watch(rank, collectives.back().get(), backends.back().get());
    }
  }

  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<std::unique_ptr<Collective>> collectives;
  RankThreads threads;
};

// One {data: Float32Array, rows, cols} a rank.
std::vector<Matrix<float>> read_matrices(Napi::Value value, const Ranks& ranks, const char* where) {
  check(value.IsArray() && value.As<Napi::Array>().Length() == ranks.collectives.size(), where, ": expected a matrix for each rank");
  std::vector<Matrix<float>> matrices;
  for (uint32_t i = 0; i < value.As<Napi::Array>().Length(); ++i) {
    const Napi::Object object = value.As<Napi::Array>().Get(i).As<Napi::Object>();
    auto data = object.Get("data").As<Napi::Float32Array>();
    matrices.emplace_back(data.Data(), read_count(object.Get("rows"), where), read_count(object.Get("cols"), where));
    check(static_cast<int64_t>(data.ElementLength()) == matrices.back().rows * matrices.back().cols, where, ": data of another size");
  }
  return matrices;
}

std::vector<int64_t> read_counts(Napi::Value value, const char* where) {
  check(value.IsArray(), where, ": expected a list");
  std::vector<int64_t> counts;
  for (uint32_t i = 0; i < value.As<Napi::Array>().Length(); ++i) counts.push_back(read_count(value.As<Napi::Array>().Get(i), where));
  return counts;
}

Napi::Value test_ranks(const Napi::CallbackInfo& info) {
  const auto ranks = std::make_shared<Ranks>(read_enum<Isa>(info[0], "isa"), read_count(info[1], "numRanks"), read_count(info[2], "stoppedAfterMs"));
  const auto all_reduce = [ranks](const Napi::CallbackInfo& call) -> Napi::Value {
    const auto outs = read_matrices(call[0], *ranks, "outs");
    const auto parts = read_matrices(call[1], *ranks, "parts");
    const auto epilogue = call[2].ToString().Utf8Value() == "accumulate" ? Epilogue::accumulate : Epilogue::store;
    ranks->threads.run([&](int64_t rank) {
      const size_t i = static_cast<size_t>(rank);
      const Summand summand{parts[i], {}};
      ranks->collectives[i]->all_reduce(outs[i], {&summand, 1}, epilogue, {});
      std::fill_n(parts[i].data, parts[i].rows * parts[i].cols, 0.0f);  // nobody may still read it
    });
    return call.Env().Undefined();
  };
  const auto gather = [ranks](const Napi::CallbackInfo& call) -> Napi::Value {
    const auto outs = read_matrices(call[0], *ranks, "outs");
    const auto parts = read_matrices(call[1], *ranks, "parts");
    const auto first_columns = read_counts(call[2], "firstColumns");
    const auto first_rows = read_counts(call[3], "firstRows");
    std::vector<Range> columns;
    for (size_t i = 0; i < parts.size(); ++i) columns.push_back({first_columns.at(i), parts[i].cols});
    ranks->threads.run([&](int64_t rank) {
      const size_t i = static_cast<size_t>(rank);
      ranks->collectives[i]->gather(outs[i], parts[i], {columns.data(), static_cast<int64_t>(columns.size())}, first_rows.at(i));
      std::fill_n(parts[i].data, parts[i].rows * parts[i].cols, 0.0f);
    });
    return call.Env().Undefined();
  };
  // One rank does not take part in an all-reduce: it fails, or it halts for ever. The others' messages come back.
  const auto without = [ranks](const Napi::CallbackInfo& call) -> Napi::Value {
    const int64_t absent = read_count(call[0], "rank");
    const bool halts = call[1].ToBoolean().Value();
    const auto messages = std::make_shared<std::vector<std::string>>(ranks->collectives.size());
    std::string failure;
    try {
      ranks->threads.run([ranks, messages, absent, halts](int64_t rank) {
        if (rank == absent) {
          if (halts) std::promise<void>().get_future().wait();
          fail("rank ", rank, " fails");
        }
        float one = 1, out = 0;
        try {
          const Summand summand{{&one, 1, 1}, {}};
          ranks->collectives[static_cast<size_t>(rank)]->all_reduce({&out, 1, 1}, {&summand, 1}, Epilogue::store, {});
        } catch (const Error& error) {
          (*messages)[static_cast<size_t>(rank)] = error.what();
          throw;
        }
      });
    } catch (const Error& error) {
      failure = error.what();
    }
    Napi::Array list = Napi::Array::New(call.Env());
    list.Set(0u, Napi::String::New(call.Env(), failure));
    for (const std::string& message : *messages) list.Set(list.Length(), Napi::String::New(call.Env(), message));
    return list;
  };
  // One rank sleeps so long before it takes part in an all-reduce. How many milliseconds of a processor each has used.
  const auto late = [ranks](const Napi::CallbackInfo& call) -> Napi::Value {
    const int64_t ms = read_count(call[1], "ms"), last = read_count(call[0], "rank");
    std::vector<int64_t> used(ranks->collectives.size());
    ranks->threads.run([&](int64_t rank) {
      const int64_t before = thread_time_ns(pthread_self());
      if (rank == last) std::this_thread::sleep_for(std::chrono::milliseconds(ms));
      float one = 1, out = 0;
      const Summand summand{{&one, 1, 1}, {}};
      ranks->collectives[static_cast<size_t>(rank)]->all_reduce({&out, 1, 1}, {&summand, 1}, Epilogue::store, {});
      used[static_cast<size_t>(rank)] = thread_time_ns(pthread_self()) - before;
    });
    Napi::Array list = Napi::Array::New(call.Env());
    for (const int64_t ns : used) list.Set(list.Length(), Napi::Number::New(call.Env(), static_cast<double>(ns) / 1e6));
    return list;
  };
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("allReduce", guarded(info.Env(), all_reduce));
  object.Set("gather", guarded(info.Env(), gather));
  object.Set("without", guarded(info.Env(), without));
  object.Set("late", guarded(info.Env(), late));
  return object;
}

}  // namespace

void register_test_ranks(Napi::Env env, Napi::Object exports) {
  exports.Set("testShards", guarded(env, test_shards));
  exports.Set("testRanks", guarded(env, test_ranks));
}

}  // namespace parley

#include "binding/test_ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/arithmetic.h"
#include "base/check.h"
#include "binding/read_contract.h"
#include "cpu/calibrate.h"
#include "cpu/cpu_backend.h"
#include "cuda/cuda_library.h"

namespace parley {
namespace {

// Memory of a backend's ops.
class OpsMemory {
 public:
  OpsMemory(Backend& backend, int64_t bytes) : backend_(backend), bytes_(bytes), data_(static_cast<char*>(backend.allocate(bytes))) {}
  ~OpsMemory() { backend_.release(data_, bytes_); }
  OpsMemory(const OpsMemory&) = delete;
  OpsMemory& operator=(const OpsMemory&) = delete;

  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  Backend& backend_;
  int64_t bytes_;
  char* data_;
};

// What one call of an op lives on besides JavaScript's arrays.
struct Call {
  Backend& backend;
  std::deque<SamplingParams> params;
  std::deque<std::vector<TokenCount>> counts;
  std::deque<std::vector<SampleRow>> rows;
  std::deque<std::vector<ScoreRow>> scores;
  std::deque<PackedWeight> weights;
  std::deque<std::vector<ExpertWeights>> experts;
  std::deque<std::vector<Matrix<const float>>> matrices;
  std::deque<std::vector<Product>> products;
  std::deque<OpsMemory> memory;
};

Napi::Value field(Napi::Value object, const char* name, const std::string& where) {
  check(object.IsObject(), where, ": expected an object");
  const Napi::Value value = object.As<Napi::Object>().Get(name);
  check(!value.IsUndefined(), where, ".", name, ": missing");
  return value;
}

int64_t read_int(Napi::Value value, int64_t min, int64_t max, const std::string& where) {
  check(value.IsNumber(), where, ": expected a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  check(std::floor(number) == number && number >= static_cast<double>(min) && number <= static_cast<double>(max), where,
        ": expected an integer from ", min, " to ", max, ", got ", number);
  return static_cast<int64_t>(number);
}

constexpr int64_t kMaxSize = int64_t{1} << 31;

template <class Number>
struct ArrayType;
template <>
struct ArrayType<float> {
  static constexpr napi_typedarray_type kType = napi_float32_array;
  static constexpr const char* kName = "Float32Array";
};
template <>
struct ArrayType<int32_t> {
  static constexpr napi_typedarray_type kType = napi_int32_array;
  static constexpr const char* kName = "Int32Array";
};
template <>
struct ArrayType<uint16_t> {
  static constexpr napi_typedarray_type kType = napi_uint16_array;
  static constexpr const char* kName = "Uint16Array";
};

// A view of a typed array; null and undefined are an empty one.
template <class Number>
Span<Number> read_array(Napi::Value value, const std::string& where) {
  if (value.IsNull() || value.IsUndefined()) return {};
  check(value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == ArrayType<Number>::kType, where, ": expected a ",
        ArrayType<Number>::kName);
  auto array = value.As<Napi::TypedArrayOf<Number>>();
  return {array.Data(), static_cast<int64_t>(array.ElementLength())};
}

void check_size(int64_t have, int64_t need, const std::string& where) {
  check(have >= need, where, ": expected at least ", need, " numbers, got ", have);
}

// One reader for each type of argument in ops.def.
template <class T>
struct Argument;

// A list, each item of which read(item, where) makes, into a new one of `lists`.
template <class Item, class Read>
Span<const Item> read_list(Napi::Value value, const std::string& where, std::deque<std::vector<Item>>& lists, const Read& read) {
  check(value.IsArray(), where, ": expected a list");
  const auto list = value.As<Napi::Array>();
  lists.emplace_back();
  std::vector<Item>& items = lists.back();
  for (uint32_t i = 0; i < list.Length(); ++i) items.push_back(read(list.Get(i), where + "[" + std::to_string(i) + "]"));
  return {items.data(), static_cast<int64_t>(items.size())};
}

// {data, rows, cols, stride?}
template <class Number>
struct Argument<Matrix<Number>> {
  static Matrix<Number> read(Napi::Value value, Call&, const std::string& where) {
    using Plain = std::remove_const_t<Number>;
    const int64_t rows = read_int(field(value, "rows", where), 0, kMaxSize, where + ".rows");
    const int64_t cols = read_int(field(value, "cols", where), 0, kMaxSize, where + ".cols");
    const Napi::Value stride_value = value.As<Napi::Object>().Get("stride");
    const int64_t stride = stride_value.IsUndefined() ? cols : read_int(stride_value, cols, kMaxSize, where + ".stride");
    const Span<Plain> data = read_array<Plain>(field(value, "data", where), where + ".data");
    check_size(data.size, rows == 0 ? 0 : checked_add(checked_mul(rows - 1, stride), cols), where + ".data");
    return {data.data, rows, cols, stride};
  }
};

// {data, rows, cols, stride?, dtype?}: of a 16-bit type its numbers' bits, in a Uint16Array.
template <class Void>
struct Argument<TypedMatrix<Void>> {
  static TypedMatrix<Void> read(Napi::Value value, Call& call, const std::string& where) {
    check(value.IsObject(), where, ": expected an object");
    const Napi::Value dtype_value = value.As<Napi::Object>().Get("dtype");
    const DType dtype = dtype_value.IsUndefined() ? DType::float32 : read_enum<DType>(dtype_value, where + ".dtype");
    if (dtype == DType::float32) return Argument<Matrix<float>>::read(value, call, where);
    const auto bits = Argument<Matrix<uint16_t>>::read(value, call, where);
    return {bits.data, dtype, bits.rows, bits.cols, bits.stride};
  }
};

// A list of matrices.
template <>
struct Argument<Span<const Matrix<const float>>> {
  static Span<const Matrix<const float>> read(Napi::Value value, Call& call, const std::string& where) {
    return read_list(value, where, call.matrices, [&](Napi::Value entry, const std::string& here) {
      return Argument<Matrix<const float>>::read(entry, call, here);
    });
  }
};

template <class Number>
struct Argument<Span<Number>> {
  static Span<Number> read(Napi::Value value, Call&, const std::string& where) {
    return read_array<std::remove_const_t<Number>>(value, where);
  }
};

// {dtype, rows, cols, data: Float32Array, split?}: packed on the fly, in two parts if `split` rows come first.
template <>
struct Argument<const PackedWeight&> {
  static const PackedWeight& read(Napi::Value value, Call& call, const std::string& where) {
    const DType dtype = read_enum<DType>(field(value, "dtype", where), where + ".dtype");
    const int64_t rows = read_int(field(value, "rows", where), 1, kMaxSize, where + ".rows");
    const int64_t cols = read_int(field(value, "cols", where), 1, kMaxSize, where + ".cols");
    const Span<float> data = read_array<float>(field(value, "data", where), where + ".data");
    check_size(data.size, checked_mul(rows, cols), where + ".data");
    const Napi::Value split_value = value.As<Napi::Object>().Get("split");
    const int64_t split = split_value.IsUndefined() ? rows : read_int(split_value, 0, rows, where + ".split");

    // Filled with ones' bits (NaN), so that padding that is not written shows.
    const std::vector<char> ones(static_cast<size_t>(call.backend.packed_bytes(rows, cols, dtype)), '\xff');
    call.memory.emplace_back(call.backend, static_cast<int64_t>(ones.size()));
    call.backend.upload(call.memory.back().data(), ones.data(), call.memory.back().bytes());
    call.weights.push_back({call.memory.back().data(), dtype, rows, cols});
    const PackedWeight& weight = call.weights.back();
    const int64_t stride = cols * static_cast<int64_t>(sizeof(float));
    const StoredRows runs[] = {{weight, 0, split, data.data, DType::float32, stride},
                               {weight, split, rows - split, data.data + split * cols, DType::float32, stride}};
    call.backend.pack_rows({runs, 2});
    return weight;
  }
};

// A list of {gate_up, down}, each a weight
template <>
struct Argument<Span<const ExpertWeights>> {
  static Span<const ExpertWeights> read(Napi::Value value, Call& call, const std::string& where) {
    return read_list(value, where, call.experts, [&](Napi::Value entry, const std::string& here) {
      return ExpertWeights{Argument<const PackedWeight&>::read(field(entry, "gate_up", here), call, here + ".gate_up"),
                           Argument<const PackedWeight&>::read(field(entry, "down", here), call, here + ".down")};
    });
  }
};

bool read_flag(Napi::Value value, const std::string& where) {
  check(value.IsBoolean(), where, ": expected true or false");
  return value.As<Napi::Boolean>().Value();
}

template <>
struct Argument<bool> {
  static bool read(Napi::Value value, Call&, const std::string& where) { return read_flag(value, where); }
};

// {num_heads, num_kv_heads, head_dim, rope_dims}
template <>
struct Argument<HeadLayout> {
  static HeadLayout read(Napi::Value value, Call&, const std::string& where) {
    HeadLayout heads;
    heads.num_heads = read_int(field(value, "num_heads", where), 1, 1024, where + ".num_heads");
    heads.num_kv_heads = read_int(field(value, "num_kv_heads", where), 1, 1024, where + ".num_kv_heads");
    heads.head_dim = read_int(field(value, "head_dim", where), 1, 1024, where + ".head_dim");
    heads.rope_dims = read_int(field(value, "rope_dims", where), 0, heads.head_dim, where + ".rope_dims");
    check(heads.num_heads % heads.num_kv_heads == 0, where, ": num_kv_heads must divide num_heads");
    return heads;
  }
};

// {dtype, num_pages, keys, values}: the pages' bits, Float32Array for float32 and Uint16Array for the 16-bit types.
template <>
struct Argument<const KvLayer&> {
  static KvLayer read(Napi::Value value, Call&, const std::string& where) {
    KvLayer kv;
    kv.dtype = read_enum<DType>(field(value, "dtype", where), where + ".dtype");
    kv.num_pages = read_int(field(value, "num_pages", where), 1, kMaxSize, where + ".num_pages");
    const Napi::Value keys = field(value, "keys", where);
    const Napi::Value values = field(value, "values", where);
    int64_t size;
    if (kv.dtype == DType::float32) {
      const Span<float> k = read_array<float>(keys, where + ".keys");
      const Span<float> v = read_array<float>(values, where + ".values");
      kv.keys = k.data;
      kv.values = v.data;
      size = std::min(k.size, v.size);
    } else {
      const Span<uint16_t> k = read_array<uint16_t>(keys, where + ".keys");
      const Span<uint16_t> v = read_array<uint16_t>(values, where + ".values");
      kv.keys = k.data;
      kv.values = v.data;
      size = std::min(k.size, v.size);
    }
    check(size % kv.num_pages == 0 && size / kv.num_pages % kPageSize == 0, where, ": ", size, " numbers are not ", kv.num_pages,
          " pages");
    // The op's own check of the pages' size is in Checks below: it needs the heads.
    return kv;
  }
};

template <>
struct Argument<float> {
  static float read(Napi::Value value, Call&, const std::string& where) {
    check(value.IsNumber(), where, ": expected a number");
    return value.As<Napi::Number>().FloatValue();
  }
};

template <>
struct Argument<int64_t> {
  static int64_t read(Napi::Value value, Call&, const std::string& where) { return read_int(value, 0, kMaxSize, where); }
};

template <>
struct Argument<Epilogue> {
  static Epilogue read(Napi::Value value, Call&, const std::string& where) {
    constexpr std::array<const char*, 6> kNames = {"store", "gelu", "gelu_tanh", "relu", "accumulate", "silu"};
    const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
    for (size_t i = 0; i < kNames.size(); ++i) {
      if (name == kNames[i]) return static_cast<Epilogue>(i);
    }
    fail(where, ": expected store, gelu, gelu_tanh, relu, accumulate or silu");
  }
};

// A list of {out, x, weight, bias, epilogue}
template <>
struct Argument<Span<const Product>> {
  static Span<const Product> read(Napi::Value value, Call& call, const std::string& where) {
    return read_list(value, where, call.products, [&](Napi::Value entry, const std::string& here) {
      return Product{Argument<Output>::read(field(entry, "out", here), call, here + ".out"),
                     Argument<Input>::read(field(entry, "x", here), call, here + ".x"),
                     Argument<const PackedWeight&>::read(field(entry, "weight", here), call, here + ".weight"),
                     Argument<Span<const float>>::read(field(entry, "bias", here), call, here + ".bias"),
                     Argument<Epilogue>::read(field(entry, "epilogue", here), call, here + ".epilogue")};
    });
  }
};

template <>
struct Argument<Activation> {
  static Activation read(Napi::Value value, Call&, const std::string& where) { return read_enum<Activation>(value, where); }
};

template <>
struct Argument<RopeLayout> {
  static RopeLayout read(Napi::Value value, Call&, const std::string& where) { return read_enum<RopeLayout>(value, where); }
};

// {positions, sequences, page_table}
template <>
struct Argument<const AttentionRows&> {
  static AttentionRows read(Napi::Value value, Call& call, const std::string& where) {
    AttentionRows rows;
    rows.positions = read_array<int32_t>(field(value, "positions", where), where + ".positions");
    rows.sequences = read_array<int32_t>(field(value, "sequences", where), where + ".sequences");
    rows.page_table = Argument<Matrix<const int32_t>>::read(field(value, "page_table", where), call, where + ".page_table");
    rows.host_positions = rows.positions.data;
    rows.host_sequences = rows.sequences.data;
    return rows;
  }
};

// {scale, softcap?, window?, bias?: matrix, bias_by_key?: true}
template <>
struct Argument<const AttentionRule&> {
  static AttentionRule read(Napi::Value value, Call& call, const std::string& where) {
    AttentionRule rule;
    rule.scale = Argument<float>::read(field(value, "scale", where), call, where + ".scale");
    const Napi::Object object = value.As<Napi::Object>();
    if (object.Has("softcap")) rule.softcap = Argument<float>::read(object.Get("softcap"), call, where + ".softcap");
    if (object.Has("window")) rule.window = read_int(object.Get("window"), 0, kMaxSize, where + ".window");
    if (object.Has("num_keys")) rule.num_keys = read_int(object.Get("num_keys"), 0, kMaxSize, where + ".num_keys");
    if (object.Has("bias")) rule.bias = Argument<Matrix<const float>>::read(object.Get("bias"), call, where + ".bias");
    rule.bias_by_key = object.Has("bias_by_key");
    return rule;
  }
};

// A list of {params, position, counts?: Int32Array of token, count pairs, forbidden?: Int32Array}
template <>
struct Argument<Span<const SampleRow>> {
  static Span<const SampleRow> read(Napi::Value value, Call& call, const std::string& where) {
    return read_list(value, where, call.rows, [&](Napi::Value entry, const std::string& here) {
      call.params.push_back(read_contract<SamplingParams>(field(entry, "params", here), here + ".params"));
      const SamplingParams& params = call.params.back();
      check(params.bias_ids.size() == params.bias_values.size(), here, ": bias_ids and bias_values differ in length");
      const Span<int32_t> pairs = read_array<int32_t>(entry.As<Napi::Object>().Get("counts"), here + ".counts");
      check(pairs.size % 2 == 0, here, ".counts: expected pairs");
      call.counts.emplace_back();
      std::vector<TokenCount>& counts = call.counts.back();
      for (int64_t j = 0; j < pairs.size; j += 2) counts.push_back({pairs[j], pairs[j + 1]});
      SampleRow row;
      row.params = &params;
      row.counts = {counts.data(), static_cast<int64_t>(counts.size())};
      row.forbidden = read_array<int32_t>(entry.As<Napi::Object>().Get("forbidden"), here + ".forbidden");
      row.position = read_int(field(entry, "position", here), 0, kMaxSize, here + ".position");
      return row;
    });
  }
};

// A list of {token, num_top}
template <>
struct Argument<Span<const ScoreRow>> {
  static Span<const ScoreRow> read(Napi::Value value, Call& call, const std::string& where) {
    return read_list(value, where, call.scores, [&](Napi::Value entry, const std::string& here) {
      return ScoreRow{static_cast<int32_t>(read_int(field(entry, "token", here), 0, kMaxSize - 1, here + ".token")),
                      static_cast<int32_t>(read_int(field(entry, "num_top", here), 0, kMaxLogprobs, here + ".num_top"))};
    });
  }
};

// What an op trusts its caller to have checked.
struct Checks {
  static void all(Span<const int32_t> values, int64_t limit, const char* name) {
    for (const int32_t value : values) check(value >= 0 && value < limit, name, ": ", value, " is not in 0..", limit - 1);
  }
  static void same(int64_t a, int64_t b, const char* what) { check(a == b, what, ": ", a, " and ", b, " should be equal"); }
  // dtype: the 16-bit type that there can be.
  template <class Void>
  static void typed(const TypedMatrix<Void>& matrix, const char* name, DType dtype) {
    check(matrix.dtype == DType::float32 || matrix.dtype == dtype, name, ": expected float32 or ", dtype_name(dtype), ", got ", dtype_name(matrix.dtype));
  }
  static void pages(Napi::Value kv_value, const KvLayer& kv, HeadLayout heads) {
    const int64_t need = kv.num_pages * heads.num_kv_heads * heads.head_dim * kPageSize;
    const Napi::Object object = kv_value.As<Napi::Object>();
    for (const char* name : {"keys", "values"}) {
      const auto array = object.Get(name).As<Napi::TypedArray>();
      check(static_cast<int64_t>(array.ElementLength()) >= need, "kv.", name, ": expected ", need, " numbers");
    }
  }

  static void embed(const Napi::CallbackInfo&, Matrix<float> out, const PackedWeight& table, Span<const int32_t> tokens,
                    Span<const float> chosen, int64_t, float) {
    for (const int32_t token : tokens) check(!is_chosen(token) || token - kChosenToken < chosen.size, "tokens: ", token, " is not in chosen");
    same(out.rows, tokens.size, "rows of out and tokens");
    same(out.cols, table.cols, "columns of out and table");
  }
  static void sum(const Napi::CallbackInfo&, Matrix<float> out, Span<const Matrix<const float>> parts, Span<const float> bias,
                  Epilogue epilogue) {
    check(bias.empty() || bias.size == out.cols, "bias: expected none or one for each column of out");
    check(parts.size <= kMaxParts, "parts: expected at most ", kMaxParts, ", got ", parts.size);
    check(epilogue == Epilogue::store || epilogue == Epilogue::accumulate, "epilogue: expected store or accumulate");
    for (const Matrix<const float>& part : parts) {
      same(out.rows, part.rows, "rows of out and a part");
      same(out.cols, part.cols, "columns of out and a part");
    }
  }
  static void take_rows(const Napi::CallbackInfo&, Matrix<float> out, Matrix<const float> x, Span<const int32_t> rows) {
    same(out.rows, rows.size, "rows of out and rows");
    same(out.cols, x.cols, "columns of out and x");
    all(rows, x.rows, "rows");
  }
  static void layer_norm(const Napi::CallbackInfo& info, Matrix<float> out, Matrix<const float> x, Span<const float> weight,
                         Span<const float> bias, int64_t width, float eps) {
    rms_norm(info, out, x, weight, width, eps);
    rms_norm(info, out, x, bias, width, eps);
  }
  static void rms_norm(const Napi::CallbackInfo&, Matrix<float> out, Matrix<const float> x, Span<const float> weight,
                       int64_t width, float) {
    same(out.rows, x.rows, "rows of out and x");
    same(out.cols, x.cols, "columns of out and x");
    check(width >= 1 && x.cols % width == 0, "width: expected a divisor of ", x.cols, ", got ", width);
    check(weight.empty() || weight.size == width || weight.size == x.cols, "weight, bias: expected none, ", width, " or ", x.cols,
          " numbers, got ", weight.size);
  }
  static void gate(const Napi::CallbackInfo&, Output out, Matrix<const float> x, Activation) {
    same(out.rows, x.rows, "rows of out and x");
    same(2 * out.cols, x.cols, "twice the columns of out and those of x");
  }
  static void scale(const Napi::CallbackInfo&, Matrix<float>, float) {}
  static void softcap(const Napi::CallbackInfo&, Matrix<float>, float cap) { check(cap > 0, "cap: expected a positive number"); }
  static void linear(const Napi::CallbackInfo&, Span<const Product> products) {
    check(products.size >= 1 && products.size <= kMaxProducts, "products: expected 1 to ", kMaxProducts, ", got ", products.size);
    for (const auto& [out, x, weight, bias, epilogue] : products) {
      same(out.rows, x.rows, "rows of out and x");
      same(out.rows, products[0].out.rows, "rows of out, in each product");
      check(weight.dtype == products[0].weight.dtype, "weights: expected one type");
      same(out.cols, weight.rows, "columns of out and rows of weight");
      same(x.cols, weight.cols, "columns of x and weight");
      check(bias.empty() || bias.size == weight.rows, "bias: expected none or one for each row of weight");
      typed(out, "out", weight.dtype);
      typed(x, "x", weight.dtype);
      check(out.dtype == DType::float32 || (epilogue != Epilogue::store && epilogue != Epilogue::accumulate), "out: expected float32 without an activation");
    }
  }
  static void route(const Napi::CallbackInfo&, Matrix<int32_t> experts, Matrix<float> shares, Matrix<const float> logits, bool) {
    same(experts.rows, logits.rows, "rows of experts and logits");
    same(shares.rows, logits.rows, "rows of shares and logits");
    same(experts.cols, shares.cols, "columns of experts and shares");
    check(experts.cols >= 1 && experts.cols <= logits.cols, "experts: expected 1 to ", logits.cols, " columns, got ", experts.cols);
  }
  static void mix_experts(const Napi::CallbackInfo&, Matrix<float> out, Matrix<const float> x, Matrix<const int32_t> experts,
                          Matrix<const float> shares, Span<const ExpertWeights> weights, Activation) {
    same(out.rows, x.rows, "rows of out and x");
    same(out.cols, x.cols, "columns of out and x");
    same(experts.rows, x.rows, "rows of experts and x");
    same(shares.rows, x.rows, "rows of shares and x");
    same(experts.cols, shares.cols, "columns of experts and shares");
    for (int64_t t = 0; t < experts.rows; ++t) all({experts.row(t), experts.cols}, weights.size, "experts");
    for (const ExpertWeights& expert : weights) {
      same(expert.gate_up.cols, x.cols, "columns of gate_up and x");
      same(expert.down.rows, x.cols, "rows of down and columns of x");
      same(expert.gate_up.rows, 2 * expert.down.cols, "rows of gate_up and twice the columns of down");
      same(expert.down.cols, weights[0].down.cols, "columns of down, in each expert");
    }
  }
  static void rope(const Napi::CallbackInfo&, Matrix<float> qkv, Span<const int32_t> positions, Matrix<const float> cos_sin,
                   HeadLayout heads, RopeLayout) {
    same(qkv.cols, heads.qkv_size(), "columns of qkv and heads");
    same(qkv.rows, positions.size, "rows of qkv and positions");
    check(heads.rope_dims % 2 == 0, "rope_dims: expected an even number");
    check(cos_sin.cols >= heads.rope_dims, "cos_sin: too narrow");
    all(positions, cos_sin.rows, "positions");
  }
  static void write_kv(const Napi::CallbackInfo& info, const KvLayer& kv, Matrix<const float> qkv, Span<const int32_t> slots,
                       HeadLayout heads) {
    pages(info[0], kv, heads);
    same(qkv.cols, heads.qkv_size(), "columns of qkv and heads");
    same(qkv.rows, slots.size, "rows of qkv and slots");
    for (const int32_t slot : slots) check(slot >= -1 && slot < kv.num_pages * kPageSize, "slots: ", slot, " is not in -1..", kv.num_pages * kPageSize - 1);
  }
  static void copy_page(const Napi::CallbackInfo& info, const KvLayer& kv, int64_t from, int64_t to, HeadLayout heads) {
    pages(info[0], kv, heads);
    for (const int64_t page : {from, to}) check(page >= 0 && page < kv.num_pages, "page ", page, ": expected 0 to ", kv.num_pages - 1);
    check(from != to, "pages: expected two, got ", from, " twice");
  }
  static void attention(const Napi::CallbackInfo& info, Output out, Matrix<const float> qkv, const KvLayer& kv,
                        const AttentionRows& rows, HeadLayout heads, const AttentionRule& rule) {
    const auto& positions = rows.positions;
    const auto& sequences = rows.sequences;
    const auto& page_table = rows.page_table;
    check(rule.bias.cols == 0 || rule.bias.rows == heads.num_heads, "rule.bias: expected a row for each head");
    pages(info[2], kv, heads);
    same(out.rows, qkv.rows, "rows of out and qkv");
    same(out.cols, heads.query_size(), "columns of out and heads");
    typed(out, "out", kv.dtype);
    same(qkv.cols, heads.qkv_size(), "columns of qkv and heads");
    same(positions.size, qkv.rows, "positions and rows");
    same(sequences.size, qkv.rows, "sequences and rows");
    all(sequences, page_table.rows, "sequences");
    all(positions, page_table.cols * kPageSize, "positions");
    for (int64_t t = 0; t < positions.size; ++t) {
      all({page_table.row(sequences[t]), positions[t] / kPageSize + 1}, kv.num_pages, "page_table");
    }
  }
  static void sample(const Napi::CallbackInfo&, Matrix<float> logits, Span<float> chosen, Span<const SampleRow> rows,
                     int64_t num_sampled_ids, Span<int32_t> tokens, Span<float> logprobs, Span<int32_t> ranks, Matrix<int32_t> top_tokens,
                     Matrix<float> top_logprobs) {
    same(rows.size, logits.rows, "rows and logits");
    same(chosen.size, rows.size, "chosen and rows");
    check(logits.cols >= 1 && num_sampled_ids <= logits.cols, "num_sampled_ids: more than columns of logits");
    check(tokens.size >= rows.size && logprobs.size >= rows.size && ranks.size >= rows.size,
          "tokens, logprobs, ranks: expected one for each row");
    same(top_tokens.cols, top_logprobs.cols, "columns of top_tokens and top_logprobs");
    for (const SampleRow& row : rows) {
      const int64_t wanted = num_top(*row.params);
      check(wanted == 0 || (wanted <= top_tokens.cols && top_tokens.rows >= rows.size && top_logprobs.rows >= rows.size),
            "top_tokens: too small for log-probabilities of ", wanted);
    }
  }
  static void score(const Napi::CallbackInfo&, Matrix<float> logits, Span<const ScoreRow> rows, Span<float> logprobs,
                    Span<int32_t> ranks, Matrix<int32_t> top_tokens, Matrix<float> top_logprobs) {
    same(rows.size, logits.rows, "rows and logits");
    check(logprobs.size >= rows.size && ranks.size >= rows.size, "logprobs, ranks: expected one for each row");
    same(top_tokens.cols, top_logprobs.cols, "columns of top_tokens and top_logprobs");
    check(top_tokens.rows >= rows.size && top_logprobs.rows >= rows.size, "top_tokens, top_logprobs: expected one row for each");
    for (const ScoreRow& row : rows) {
      check(row.token < logits.cols, "rows: token ", row.token, " is not in 0..", logits.cols - 1);
      check(row.num_top <= top_tokens.cols, "top_tokens: too small for num_top ", row.num_top);
    }
  }
};

// JavaScript's arrays in the memory of a backend that cannot read the host's: whole buffers, so that views of one stay views of one.
class DeviceCopies {
 public:
  explicit DeviceCopies(Backend& backend) : backend_(backend) {}

  // Notes the buffers of all arrays in an argument.
  void note(Napi::Value value) {
    if (value.IsTypedArray()) {
      Napi::ArrayBuffer buffer = value.As<Napi::TypedArray>().ArrayBuffer();
      char* start = static_cast<char*>(buffer.Data());
      for (const Buffer& known : buffers_) {
        if (known.host == start) return;
      }
      buffers_.push_back({start, static_cast<int64_t>(buffer.ByteLength()), nullptr});
    } else if (value.IsObject() && !value.IsFunction()) {
      const Napi::Object object = value.As<Napi::Object>();
      const Napi::Array names = object.GetPropertyNames();
      for (uint32_t i = 0; i < names.Length(); ++i) note(object.Get(names.Get(i)));
    }
  }

  // An argument with its pointers into arrays turned into pointers into their copies.
  template <class T>
  T moved(const T& plain) {
    return plain;
  }
  template <class Number>
  Matrix<Number> moved(const Matrix<Number>& matrix) {
    return {copy_of(matrix.data), matrix.rows, matrix.cols, matrix.stride};
  }
  template <class Void>
  TypedMatrix<Void> moved(const TypedMatrix<Void>& matrix) {
    using Byte = typename TypedMatrix<Void>::Byte;
    return {copy_of(static_cast<Byte*>(matrix.data)), matrix.dtype, matrix.rows, matrix.cols, matrix.stride};
  }
  template <class Number>
  Span<Number> moved(const Span<Number>& span) {
    return {copy_of(span.data), span.size};
  }
  // A list of what lies in the host's memory on every device.
  Span<const ExpertWeights> moved(const Span<const ExpertWeights>& weights) { return weights; }
  Span<const Matrix<const float>> moved(const Span<const Matrix<const float>>& list) {
    lists_.emplace_back();
    for (const Matrix<const float>& matrix : list) lists_.back().push_back(moved(matrix));
    return {lists_.back().data(), list.size};
  }
  Span<const Product> moved(const Span<const Product>& list) {
    products_.emplace_back();
    for (const auto& [out, x, weight, bias, epilogue] : list) products_.back().push_back({moved(out), moved(x), weight, moved(bias), epilogue});
    return {products_.back().data(), list.size};
  }
  KvLayer moved(const KvLayer& kv) { return {copy_of(static_cast<char*>(kv.keys)), copy_of(static_cast<char*>(kv.values)), kv.dtype, kv.num_pages}; }
  AttentionRows moved(const AttentionRows& rows) {
    AttentionRows result = rows;
    result.positions = moved(rows.positions);
    result.sequences = moved(rows.sequences);
    result.page_table = moved(rows.page_table);
    return result;
  }
  AttentionRule moved(const AttentionRule& rule) {
    AttentionRule result = rule;
    result.bias = moved(rule.bias);
    return result;
  }

  void bring_back() {
    for (const Buffer& buffer : buffers_) {
      if (buffer.copy) backend_.download(buffer.host, buffer.copy->data(), buffer.bytes);
    }
  }

 private:
  struct Buffer {
    char* host;
    int64_t bytes;
    OpsMemory* copy;
  };

  template <class Number>
  Number* copy_of(Number* at) {
    if (!at) return nullptr;
    const char* host = reinterpret_cast<const char*>(at);
    for (Buffer& buffer : buffers_) {
      if (host < buffer.host || host >= buffer.host + std::max<int64_t>(buffer.bytes, 1)) continue;
      if (!buffer.copy) {
        memory_.emplace_back(backend_, std::max<int64_t>(buffer.bytes, 1));
        buffer.copy = &memory_.back();
        backend_.upload(buffer.copy->data(), buffer.host, buffer.bytes);
      }
      return reinterpret_cast<Number*>(buffer.copy->data() + (host - buffer.host));
    }
    fail("an array that is no argument's");
  }

  Backend& backend_;
  std::vector<Buffer> buffers_;
  std::deque<OpsMemory> memory_;
  std::deque<std::vector<Matrix<const float>>> lists_;
  std::deque<std::vector<Product>> products_;
};

// Arguments before that one are in the ops' memory: with `sample` and `score` their rows and all behind them are in the host's.
template <class... Args>
constexpr size_t first_of_host() {
  size_t index = 0;
  const bool found = ((std::is_same_v<Args, Span<const SampleRow>> || std::is_same_v<Args, Span<const ScoreRow>> || (++index, false)) || ...);
  return found ? index : sizeof...(Args);
}

// What has to be called before an op.
template <class... Args>
void prepare(Backend&, const Args&...) {}
void prepare(Backend& backend, const Output&, const Matrix<const float>&, const KvLayer&, const AttentionRows& rows,
             const HeadLayout& heads, const AttentionRule& rule) {
  ScratchLimits limits{};
  limits.rows = limits.sequences = rows.positions.size;
  limits.context = rows.page_table.cols * kPageSize;
  limits.num_heads = heads.num_heads;
  limits.head_dim = heads.head_dim;
  limits.plans = rows.plan + 1;
  backend.reserve_scratch(limits);
  backend.begin_block(0);
  backend.plan_attention(rows, heads, rule);
  backend.send_block();
}

// What has to be called behind it.
template <class... Args>
void await(Backend&, const Args&...) {}
template <class... Args>
void await(Backend& backend, const Matrix<float>&, const Span<float>&, const Span<const SampleRow>&, const Args&...) {
  backend.wait_for_choices();
}

// `Op` is Backend's method, `Check` the method of Checks with the same arguments.
template <class... Args, class Check, size_t... I>
void call_op(Backend& backend, bool reads_host, void (Backend::*op)(Args...), Check check_arguments, const Napi::CallbackInfo& info,
             std::index_sequence<I...>) {
  Call call{backend, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  // Braces read the arguments in order.
  std::tuple<decltype(Argument<Args>::read(info[I], call, ""))...> arguments{
      Argument<Args>::read(info[I], call, "argument " + std::to_string(I))...};
  check_arguments(info, std::get<I>(arguments)...);
  const auto run = [&](const auto&... all) {
    prepare(backend, all...);
    (backend.*op)(all...);
    await(backend, all...);
  };
  if (reads_host) return run(std::get<I>(arguments)...);
  DeviceCopies copies(backend);
  for (size_t i = 0; i < sizeof...(Args); ++i) copies.note(info[i]);
  const auto moved = [&](size_t index, const auto& argument) { return index >= first_of_host<Args...>() ? argument : copies.moved(argument); };
  run(moved(I, std::get<I>(arguments))...);
  copies.bring_back();
}

template <class... Args, class Check>
Napi::Value run_op(Backend& backend, bool reads_host, void (Backend::*op)(Args...), Check check_arguments,
                   const Napi::CallbackInfo& info) {
  try {
    call_op(backend, reads_host, op, check_arguments, info, std::index_sequence_for<Args...>{});
  } catch (const Error& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
  return info.Env().Undefined();
}

// The ops of a backend as functions.
Napi::Object functions_of(Napi::Env env, std::shared_ptr<Backend> backend, bool reads_host) {
  Napi::Object ops = Napi::Object::New(env);
#define OP(name, arguments)                                                                       \
  ops.Set(#name, Napi::Function::New(env, [backend, reads_host](const Napi::CallbackInfo& info) { \
            return run_op(*backend, reads_host, &Backend::name, &Checks::name, info);             \
          }));
#include "ops/ops.def"
#undef OP
  return ops;
}

// (isa, numThreads)
Napi::Value test_ops(const Napi::CallbackInfo& info) {
  try {
    const Isa isa = read_enum<Isa>(info[0], "isa");
    return functions_of(info.Env(), make_cpu_backend(isa, static_cast<int>(read_int(info[1], 1, 1024, "numThreads"))), true);
  } catch (const Error& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

// (deterministic): the same of the first GPU
Napi::Value test_cuda_ops(const Napi::CallbackInfo& info) {
  try {
    return functions_of(info.Env(), cuda_library().make_backend(0, read_flag(info[0], "deterministic"), 0), false);
  } catch (const Error& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

Napi::Value has_isa_export(const Napi::CallbackInfo& info) {
  try {
    return Napi::Boolean::New(info.Env(), has_isa(read_enum<Isa>(info[0], "isa")));
  } catch (const Error& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

Napi::Value calibrate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  try {
    const Isa isa = read_enum<Isa>(info[0], "isa");
    const int num_threads = static_cast<int>(read_int(info[1], 1, 1024, "numThreads"));
    const int64_t bytes = read_int(info[2], 1, int64_t{1} << 40, "bytes");
    check(info[3].IsNumber(), "seconds: expected a number");
    const double seconds = info[3].As<Napi::Number>().DoubleValue();
    Napi::Object result = Napi::Object::New(env);
    result.Set("readGBps", measure_read_bandwidth(num_threads, bytes, seconds));
    result.Set("fmaGflops", measure_fma_rate(isa, num_threads, seconds));
    return result;
  } catch (const Error& error) {
    throw Napi::Error::New(env, error.what());
  }
}

}  // namespace

void register_test_ops(Napi::Env env, Napi::Object exports) {
  exports.Set("testOps", Napi::Function::New(env, test_ops));
  exports.Set("testCudaOps", Napi::Function::New(env, test_cuda_ops));
  exports.Set("hasIsa", Napi::Function::New(env, has_isa_export));
  exports.Set("calibrate", Napi::Function::New(env, calibrate));
}

}  // namespace parley

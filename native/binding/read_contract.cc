// The readers and writers, made from contract.def.
#include "binding/read_contract.h"

#include <cmath>
#include <ostream>
#include <vector>

#include "base/check.h"

namespace parley {
namespace {

// What a wrong value looks like in a message: short, and never a long text.
std::string describe(Napi::Value value) {
  if (value.IsUndefined()) return "nothing";
  if (value.IsString()) {
    const std::string text = value.As<Napi::String>().Utf8Value();
    return "'" + text.substr(0, 40) + (text.size() > 40 ? "...'" : "'");
  }
  if (value.IsNumber() || value.IsBoolean() || value.IsNull()) return value.ToString().Utf8Value();
  return value.IsTypedArray() ? "a typed array" : value.IsArray() ? "an array" : value.IsFunction() ? "a function" : "an object";
}

// Where a value stands: in messages, which are made only for a value that is wrong.
struct Field {
  const std::string& owner;
  const char* name;
};

std::ostream& operator<<(std::ostream& out, const Field& field) { return out << field.owner << "." << field.name; }

Napi::Object read_object(Napi::Value value, const std::string& where) {
  if (!value.IsObject() || value.IsArray() || value.IsFunction()) fail(where, ": expected an object, got ", describe(value));
  return value.As<Napi::Object>();
}

int64_t read_int(Napi::Value value, Field field, int64_t fallback, int64_t min, int64_t max) {
  if (value.IsUndefined() && fallback >= min && fallback <= max) return fallback;
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number == std::floor(number) && number >= static_cast<double>(min) && number <= static_cast<double>(max))) {
    fail(field, ": expected an integer from ", min, " to ", max, ", got ", describe(value));
  }
  return static_cast<int64_t>(number);
}

double read_real(Napi::Value value, Field field, double fallback, double min, double max) {
  if (value.IsUndefined() && fallback >= min && fallback <= max) return fallback;
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number >= min && number <= max)) fail(field, ": expected a number from ", min, " to ", max, ", got ", describe(value));
  return number;
}

bool read_flag(Napi::Value value, Field field, bool fallback) {
  if (value.IsUndefined()) return fallback;
  if (!value.IsBoolean()) fail(field, ": expected true or false, got ", describe(value));
  return value.As<Napi::Boolean>().Value();
}

// `number` is int32_t or float; napi_int32_array or napi_float32_array.
template <class T>
std::vector<T> read_list(Napi::Value value, Field field, napi_typedarray_type type, double min, double max) {
  if (value.IsUndefined()) return {};
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    fail(field, ": expected ", type == napi_int32_array ? "an Int32Array" : "a Float32Array", ", got ", describe(value));
  }
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  std::vector<T> list(array.Data(), array.Data() + array.ElementLength());
  for (size_t i = 0; i < list.size(); ++i) {
    check(list[i] >= min && list[i] <= max, field, "[", i, "]: expected ", min, " to ", max, ", got ", list[i]);
  }
  return list;
}

// The names of an ENUM from its macro's text; a trailing underscore only avoids a C++ keyword.
std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  std::string name;
  for (const char c : text + ",") {
    if (c == ',') {
      if (!name.empty() && name.back() == '_') name.pop_back();
      names.push_back(name);
      name.clear();
    } else if (c != ' ' && c != '\n') {
      name += c;
    }
  }
  return names;
}

template <class E>
const std::vector<std::string>& enum_names();

#define ENUM(Name, ...)                                                    \
  template <>                                                              \
  const std::vector<std::string>& enum_names<Name>() {                     \
    static const std::vector<std::string> names = split_names(#__VA_ARGS__); \
    return names;                                                          \
  }
#define STRUCT(Name, doc)
#define INT(name, fallback, min, max, doc)
#define REAL(name, fallback, min, max, doc)
#define FLAG(name, fallback, doc)
#define CHOICE(Enum, name, fallback, doc)
#define INTS(name, min, max, doc)
#define REALS(name, min, max, doc)
#define COUNT(name, doc)
#define END(Name)
#include "contract.def"
#undef ENUM
#undef STRUCT
#undef INT
#undef REAL
#undef FLAG
#undef CHOICE
#undef INTS
#undef REALS
#undef COUNT
#undef END

}  // namespace

template <class E>
E read_enum(Napi::Value value, const std::string& where) {
  std::string expected;
  const std::string given = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  const auto& names = enum_names<E>();
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == given) return static_cast<E>(i);
    expected += (i > 0 ? ", " : "") + names[i];
  }
  fail(where, ": expected one of ", expected, "; got ", describe(value));
}

template <class E>
std::string enum_name(E value) {
  return enum_names<E>().at(static_cast<size_t>(value));
}

#define ENUM(Name, ...)                                          \
  template Name read_enum<Name>(Napi::Value, const std::string&); \
  template std::string enum_name<Name>(Name);
#define STRUCT(Name, doc)                                               \
  template <>                                                           \
  Name read_contract<Name>(Napi::Value value, const std::string& where) { \
    Name result;                                                        \
    [[maybe_unused]] const Napi::Object object = read_object(value, where);
#define INT(name, fallback, min, max, doc) result.name = read_int(object.Get(#name), {where, #name}, fallback, min, max);
#define REAL(name, fallback, min, max, doc) result.name = read_real(object.Get(#name), {where, #name}, fallback, min, max);
#define FLAG(name, fallback, doc) result.name = read_flag(object.Get(#name), {where, #name}, fallback);
#define CHOICE(Enum, name, fallback, doc) \
  if (!object.Get(#name).IsUndefined()) result.name = read_enum<Enum>(object.Get(#name), where + "." #name);
#define INTS(name, min, max, doc) result.name = read_list<int32_t>(object.Get(#name), {where, #name}, napi_int32_array, min, max);
#define REALS(name, min, max, doc) result.name = read_list<float>(object.Get(#name), {where, #name}, napi_float32_array, min, max);
#define COUNT(name, doc)
#define END(Name) \
  return result;  \
  }
#include "contract.def"
#undef ENUM
#undef STRUCT
#undef INT
#undef REAL
#undef FLAG
#undef CHOICE
#undef INTS
#undef REALS
#undef COUNT
#undef END

#define ENUM(Name, ...)
#define STRUCT(Name, doc)                                            \
  template <>                                                        \
  Napi::Object write_contract<Name>(Napi::Env env, const Name& value) { \
    Napi::Object object = Napi::Object::New(env);
#define INT(name, fallback, min, max, doc) object.Set(#name, static_cast<double>(value.name));
#define REAL(name, fallback, min, max, doc) object.Set(#name, value.name);
#define FLAG(name, fallback, doc) object.Set(#name, value.name);
#define CHOICE(Enum, name, fallback, doc) object.Set(#name, enum_name(value.name));
#define INTS(name, min, max, doc)                                        \
  auto name = Napi::Int32Array::New(env, value.name.size());             \
  std::copy(value.name.begin(), value.name.end(), name.Data());          \
  object.Set(#name, name);
#define REALS(name, min, max, doc)                                       \
  auto name = Napi::Float32Array::New(env, value.name.size());           \
  std::copy(value.name.begin(), value.name.end(), name.Data());          \
  object.Set(#name, name);
#define COUNT(name, doc) object.Set(#name, value.name);
#define END(Name) \
  return object;  \
  }
#include "contract.def"

}  // namespace parley

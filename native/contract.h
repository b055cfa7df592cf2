// The structs of contract.def, as C++ sees them.
#pragma once

#include <cstdint>
#include <vector>

namespace parley {

#define ENUM(Name, ...) enum class Name : int32_t { __VA_ARGS__ };
#define STRUCT(Name, doc) struct Name {
#define INT(name, default_, min, max, doc) int64_t name = default_;
#define REAL(name, default_, min, max, doc) double name = default_;
#define FLAG(name, default_, doc) bool name = default_;
#define CHOICE(Enum, name, default_, doc) Enum name = Enum::default_;
#define INTS(name, min, max, doc) std::vector<int32_t> name;
#define REALS(name, min, max, doc) std::vector<float> name;
#define COUNT(name, doc) double name = 0;
#define END(Name) \
  }               \
  ;
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

}  // namespace parley

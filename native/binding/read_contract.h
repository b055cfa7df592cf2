// JavaScript values <-> the structs of contract.def. Readers check presence, type and range, and name the field that is wrong.
#pragma once

#include <napi.h>

#include <string>

#include "contract.h"

namespace parley {

// Reads struct T; `where` names the value in messages. Throws Error: "<where>.<field>: expected ..., got ...".
template <class T>
T read_contract(Napi::Value value, const std::string& where);

// A plain object with every field of the struct.
template <class T>
Napi::Object write_contract(Napi::Env env, const T& value);

// An ENUM's value from its name; throws Error with the list of names.
template <class E>
E read_enum(Napi::Value value, const std::string& where);

template <class E>
std::string enum_name(E value);

}  // namespace parley

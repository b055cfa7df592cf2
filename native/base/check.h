// check(condition, parts...): the one way native code refuses. Throws Error with the parts joined, values included.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace parley {

// Anything that the caller of the addon can have caused; the binding turns it into a JavaScript Error. Never abort().
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  message.precision(16);  // a limit of 4194304 is not 4.1943e+06
  (message << ... << parts);
  throw Error(message.str());
}

template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) fail(parts...);
}

}  // namespace parley

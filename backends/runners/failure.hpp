// What goes wrong, in one sentence.
#pragma once

#include <stdexcept>
#include <string>

namespace gw {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace gw

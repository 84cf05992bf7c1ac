// Which compiled functions run a call, as backends/tvm/run/choice.py picks them.
#pragma once

#include <utility>
#include <vector>

#include "manifest.hpp"

namespace gw {

// (number of the function, rows of the call that it runs) in the order of the rows; rows is 0 where nothing is
// split. sizes: of every symbol of the call. Throws Failure where nothing that is compiled holds the call.
std::vector<std::pair<size_t, int64_t>> pieces(const Manifest &manifest, const std::vector<int64_t> &sizes);

}  // namespace gw

// Puts a call's arrays into those of a compiled size and takes results out, as backends/tvm/run/fitting.py does.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "call.hpp"

namespace gw {

// Bytes at a multiple of 64, where TVM's functions expect tensors to begin.
struct Freed {
  void operator()(char *data) const { std::free(data); }
};
using Aligned = std::unique_ptr<char, Freed>;
Aligned aligned(size_t bytes);

// An array with its own bytes.
struct Owned {
  Array array;
  Aligned bytes;
};
Owned owned(const DType *dtype, std::vector<int64_t> shape);

// Copies a block of `extent` from `start` in one array to `place` in another of that rank and dtype.
void copy_block(Array &to, const std::vector<int64_t> &place, const Array &from, const std::vector<int64_t> &start,
                const std::vector<int64_t> &extent);

// Fills an input of a compiled size with a call's array, which is no larger along any axis: the rest becomes masked
// tokens, and rows like the first one.
void fill(Array &array, const Input &spec, const Compiled &compiled, const Array &given);

// Indices that count from the end, as from the start: from a padded axis' end they are others.
Owned from_the_start(const Array &given, int64_t size, int64_t reach);

// The tokens that a mask keeps, numbered as in a function's own (batch, length), and where each sequence begins among
// them, both int32 (backends/tvm/run/kept.py).
std::vector<Owned> real_tokens(const Input &spec, const Array &mask, const std::vector<int64_t> &own);

}  // namespace gw

// One call's arrays, checked against what the inputs accept. The same rules as backends/bundles/feeds.py.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "graphwright.h"
#include "manifest.hpp"

namespace gw {

struct Array {
  const DType *dtype = nullptr;
  std::vector<int64_t> shape;
  const char *data = nullptr;

  size_t count() const;  // of elements
};

class Call {
 public:
  // Throws Failure naming the input that is missing, unknown or does not fit.
  Call(const Manifest &manifest, const gw_array *inputs, size_t count);
  Call(const Call &) = delete;

  std::vector<Array> arrays;   // in the manifest's order
  std::vector<int64_t> sizes;  // by symbol

 private:
  void match(const Manifest &manifest, const gw_array *inputs, size_t count);
  void remember(const Manifest &manifest);
  void fit(const Manifest &manifest);

  std::deque<std::vector<char>> made_;  // empty memories
};

// Batch, length and share of padding of a call: what decides which graph is fastest for it.
struct Coordinates {
  int64_t batch, length;
  double padding;
};

Coordinates coordinates(const Manifest &manifest, const Call &call);

// Of a mask, which elements hide nothing.
std::vector<char> kept(const Input &spec, const Array &mask);

// An integer of an array.
int64_t integer(const Array &array, size_t place);

}  // namespace gw

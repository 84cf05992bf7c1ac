#include "call.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>

#include "failure.hpp"

namespace gw {
namespace {

constexpr size_t kMostBytes = size_t(1) << 46;    // of an array: more than any machine has
constexpr size_t kMostMemory = size_t(1) << 30;  // of an empty memory, which is made here

std::string told(const std::vector<int64_t> &shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string dim_name(const Manifest &manifest, const Dim &dim) {
  return dim.symbol < 0 ? std::to_string(dim.size) : manifest.symbols[static_cast<size_t>(dim.symbol)].name;
}

std::string names(const Manifest &manifest) {
  std::string text;
  for (auto &spec : manifest.inputs) text += (text.empty() ? "" : ", ") + spec.name;
  return text;
}

template <typename T>
int64_t as_integer(const char *data, size_t place) {
  T value;
  std::memcpy(&value, data + place * sizeof(T), sizeof(T));
  if (sizeof(T) == 8 && static_cast<uint64_t>(value) > uint64_t(INT64_MAX) && !std::numeric_limits<T>::is_signed)
    return INT64_MAX;  // beyond every bound that a manifest can state
  return static_cast<int64_t>(value);
}

template <typename T>
std::pair<int64_t, int64_t> extremes(const Array &array) {
  const size_t count = array.count();
  int64_t low = as_integer<T>(array.data, 0), high = low;
  for (size_t i = 1; i < count; ++i) {
    int64_t value = as_integer<T>(array.data, i);
    low = std::min(low, value), high = std::max(high, value);
  }
  return {low, high};
}

std::pair<int64_t, int64_t> range(const Array &array) {
  const bool is_signed = array.dtype->kind == 0;
  switch (array.dtype->bytes) {
    case 1: return is_signed ? extremes<int8_t>(array) : extremes<uint8_t>(array);
    case 2: return is_signed ? extremes<int16_t>(array) : extremes<uint16_t>(array);
    case 4: return is_signed ? extremes<int32_t>(array) : extremes<uint32_t>(array);
    default: return is_signed ? extremes<int64_t>(array) : extremes<uint64_t>(array);
  }
}

void check_ids(const Manifest &manifest, const Input &spec, const Array &array, const std::vector<int64_t> &sizes) {
  const bool integers = array.dtype->kind <= 1 || array.dtype->kind == 6;
  const bool bounded = spec.high.value_or(0) != 0;
  if (!array.count() || !(bounded || (spec.indexes && spec.follows))) return;
  if (!integers) throw Failure(spec.name + ": ids are integers and these are " + array.dtype->name);
  auto [least, most] = range(array);
  if (bounded) {
    if (least < spec.low || most >= *spec.high)
      throw Failure(spec.name + ": " + std::to_string(least < spec.low ? least : most) +
                    " is out of range; ids go from " + std::to_string(spec.low) + " to " +
                    std::to_string(*spec.high - 1));
    return;
  }
  const int64_t size = spec.follows->symbol < 0 ? spec.follows->size : sizes[static_cast<size_t>(spec.follows->symbol)];
  const int64_t low = spec.reach - size, high = spec.reach + size;
  if (least < low || most >= high)
    throw Failure(spec.name + ": " + std::to_string(least < low ? least : most) + " is out of range; at " +
                  dim_name(manifest, *spec.follows) + " " + std::to_string(size) + " indices go from " +
                  std::to_string(spec.reach) + " to " + std::to_string(high - 1) + ", or as far back from the end");
}

// The input that says how large a call is: ids, else hidden states, sound or pixels, else the first.
size_t sized_by(const Manifest &manifest) {
  auto &inputs = manifest.inputs;
  auto first = [&](auto &&fits) {
    for (size_t i = 0; i < inputs.size(); ++i)
      if (fits(inputs[i])) return static_cast<int>(i);
    return -1;
  };
  auto floats = [](const Input &spec) {
    return spec.shape.size() > 1 && spec.role != "mask" && std::strstr(spec.dtype->name, "float");
  };
  for (auto role : {"token_ids", "decoder_token_ids"})
    if (int at = first([&](const Input &spec) { return spec.role == role; }); at >= 0) return static_cast<size_t>(at);
  int known = first([&](const Input &spec) {
    return floats(spec) && (spec.role == "hidden" || spec.role == "audio_features" || spec.role == "pixel_values");
  });
  if (known < 0) known = first(floats);
  return known < 0 ? 0 : static_cast<size_t>(known);
}

}  // namespace

size_t Array::count() const {
  size_t found = 1;
  for (int64_t size : shape) found *= static_cast<size_t>(size);
  return found;
}

int64_t integer(const Array &array, size_t place) {
  const bool is_signed = array.dtype->kind == 0;
  switch (array.dtype->bytes) {
    case 1: return is_signed ? as_integer<int8_t>(array.data, place) : as_integer<uint8_t>(array.data, place);
    case 2: return is_signed ? as_integer<int16_t>(array.data, place) : as_integer<uint16_t>(array.data, place);
    case 4: return is_signed ? as_integer<int32_t>(array.data, place) : as_integer<uint32_t>(array.data, place);
    default: return is_signed ? as_integer<int64_t>(array.data, place) : as_integer<uint64_t>(array.data, place);
  }
}

Call::Call(const Manifest &manifest, const gw_array *inputs, size_t count) {
  match(manifest, inputs, count);
  remember(manifest);
  fit(manifest);
}

void Call::match(const Manifest &manifest, const gw_array *inputs, size_t count) {
  if (count && !inputs) throw Failure("the inputs are NULL");
  arrays.resize(manifest.inputs.size());
  for (size_t i = 0; i < count; ++i) {
    const gw_array &given = inputs[i];
    if (!given.name || !given.dtype) throw Failure("an input has no name or no dtype");
    size_t at = 0;
    while (at < manifest.inputs.size() && manifest.inputs[at].name != given.name) ++at;
    if (at == manifest.inputs.size())
      throw Failure("the model has no input " + std::string(given.name) + "; it takes " + names(manifest));
    Array &array = arrays[at];
    const Input &spec = manifest.inputs[at];
    if (array.dtype) throw Failure("the input " + spec.name + " is given twice");
    if (spec.dtype->name != std::string(given.dtype))
      throw Failure(spec.name + ": its dtype is " + given.dtype + " and the model takes " + spec.dtype->name);
    if (given.rank > 64 || (given.rank && !given.shape)) throw Failure(spec.name + ": it has no shape");
    array.dtype = spec.dtype;
    array.shape.assign(given.shape, given.shape + given.rank);
    array.data = static_cast<const char *>(given.data);
  }
}

void Call::remember(const Manifest &manifest) {
  std::map<int, int64_t> known;
  for (size_t i = 0; i < arrays.size(); ++i)
    for (size_t axis = 0; arrays[i].dtype && axis < std::min(arrays[i].shape.size(), manifest.inputs[i].shape.size()); ++axis)
      if (int symbol = manifest.inputs[i].shape[axis].symbol; symbol >= 0) known[symbol] = arrays[i].shape[axis];
  for (size_t i = 0; i < arrays.size(); ++i) {
    const Input &spec = manifest.inputs[i];
    if (arrays[i].dtype) continue;
    if (spec.given_by.empty())
      throw Failure("the input " + spec.name + " is missing; the model takes " + names(manifest));
    arrays[i].dtype = spec.dtype;
    size_t bytes = spec.dtype->bytes;
    for (auto &dim : spec.shape) {
      int64_t size = dim.symbol < 0 ? dim.size : known.count(dim.symbol) ? known[dim.symbol] : 1;
      arrays[i].shape.push_back(size);
      if (size < 0 || (size && bytes > kMostMemory / static_cast<size_t>(size)))
        throw Failure("the memory " + spec.name + " would be too large");
      bytes *= static_cast<size_t>(size);
    }
    made_.emplace_back(std::max<size_t>(bytes, 1));
    arrays[i].data = made_.back().data();
  }
}

void Call::fit(const Manifest &manifest) {
  sizes.assign(manifest.symbols.size(), 0);
  std::vector<const Input *> first(manifest.symbols.size(), nullptr);
  for (size_t i = 0; i < arrays.size(); ++i) {
    const Input &spec = manifest.inputs[i];
    const Array &array = arrays[i];
    if (array.shape.size() != spec.shape.size()) {
      std::string wanted;
      for (auto &dim : spec.shape) wanted += (wanted.empty() ? "" : ", ") + dim_name(manifest, dim);
      throw Failure(spec.name + ": its shape is " + told(array.shape) + " and the model takes [" + wanted + "]");
    }
    size_t bytes = array.dtype->bytes;
    for (size_t axis = 0; axis < spec.shape.size(); ++axis) {
      const int64_t size = array.shape[axis];
      const Dim &dim = spec.shape[axis];
      if (size < 0) throw Failure(spec.name + ": axis " + std::to_string(axis) + " is " + std::to_string(size));
      if (size && bytes > kMostBytes / static_cast<size_t>(size))
        throw Failure(spec.name + ": its shape is " + told(array.shape) + ", more than memory holds");
      bytes *= static_cast<size_t>(size);
      if (dim.symbol < 0) {
        if (size != dim.size)
          throw Failure(spec.name + ": axis " + std::to_string(axis) + " is " + std::to_string(size) +
                        " and the model takes " + std::to_string(dim.size));
        continue;
      }
      const size_t number = static_cast<size_t>(dim.symbol);
      const Symbol &symbol = manifest.symbols[number];
      if (!first[number]) first[number] = &spec, sizes[number] = size;
      if (sizes[number] != size)
        throw Failure(spec.name + ": its " + symbol.name + " is " + std::to_string(size) + ", but that of " +
                      first[number]->name + " is " + std::to_string(sizes[number]));
      if (symbol.bounds && (size < symbol.bounds->first || size > symbol.bounds->second)) {
        const bool low = size < symbol.bounds->first;
        throw Failure(spec.name + ": its " + symbol.name + " is " + std::to_string(size) + " and the model takes " +
                      (low ? "at least " + std::to_string(symbol.bounds->first)
                           : "at most " + std::to_string(symbol.bounds->second)));
      }
    }
    if (!array.data && array.count()) throw Failure(spec.name + ": its data is NULL");
  }
  for (size_t i = 0; i < arrays.size(); ++i) check_ids(manifest, manifest.inputs[i], arrays[i], sizes);
}

std::vector<char> kept(const Input &spec, const Array &mask) {
  const size_t bytes = mask.dtype->bytes, count = mask.count();
  const bool is_float = mask.dtype->kind == 2 || mask.dtype->kind == 4;
  std::vector<char> found(count);
  for (size_t i = 0; i < count; ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, mask.data + i * bytes, bytes);
    if (is_float) bits &= ~(uint64_t(1) << (8 * bytes - 1));  // -0.0 is 0
    found[i] = spec.hidden != 0 ? bits == 0 : bits != 0;
  }
  return found;
}

Coordinates coordinates(const Manifest &manifest, const Call &call) {
  const size_t number = sized_by(manifest);
  const Input &spec = manifest.inputs[number];
  const Array &array = call.arrays[number];
  Coordinates found{array.shape.empty() ? 1 : array.shape[0], 1, 0.0};
  for (size_t axis = 1; axis < spec.shape.size(); ++axis)
    if (spec.shape[axis].symbol >= 0) {
      found.length = array.shape[axis];
      break;
    }
  for (size_t i = 0; i < manifest.inputs.size(); ++i) {
    if (manifest.inputs[i].role != "attention_mask") continue;
    const std::vector<char> real = kept(manifest.inputs[i], call.arrays[i]);
    const double count = static_cast<double>(std::count(real.begin(), real.end(), 1));
    if (!real.empty()) found.padding = 1.0 - count / static_cast<double>(real.size());
    break;
  }
  return found;
}

}  // namespace gw

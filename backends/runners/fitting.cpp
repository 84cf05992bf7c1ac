#include "fitting.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

namespace gw {
namespace {

std::vector<size_t> strides(const Array &array) {
  std::vector<size_t> found(array.shape.size());
  size_t step = array.dtype->bytes;
  for (size_t axis = found.size(); axis-- > 0;) {
    found[axis] = step;
    step *= static_cast<size_t>(array.shape[axis]);
  }
  return found;
}

char *writable(Array &array) { return const_cast<char *>(array.data); }

// A number in IEEE 754 of so many bits of exponent and mantissa, rounded to the nearest even one.
uint16_t small_float(double value, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const auto infinite = static_cast<uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits);
  if (std::isnan(value)) return static_cast<uint16_t>(infinite | 1 << (mantissa_bits - 1));
  if (std::isinf(value)) return static_cast<uint16_t>(sign | infinite);
  int exponent = 0;
  std::frexp(value, &exponent);
  const int least = std::max(exponent - 1, 1 - bias);
  const double units = std::nearbyint(std::ldexp(std::fabs(value), mantissa_bits - least));
  // The hidden bit of a normal number adds one to the exponent's field, and so does a mantissa that overflows.
  const double bits = units + std::ldexp(static_cast<double>(least + bias - 1), mantissa_bits);
  return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::min(bits, static_cast<double>(infinite))));
}

// One element of a dtype.
void encode(double value, const DType *dtype, char *place) {
  auto put = [&](auto number) { std::memcpy(place, &number, sizeof number); };
  const int64_t whole = std::isfinite(value) ? static_cast<int64_t>(value) : 0;
  if (dtype->kind == 4) put(small_float(value, 8, 7));
  else if (dtype->kind == 2 && dtype->bytes == 2) put(small_float(value, 5, 10));
  else if (dtype->kind == 2 && dtype->bytes == 4) put(static_cast<float>(value));
  else if (dtype->kind == 2) put(value);
  else if (dtype->kind == 6) put(static_cast<uint8_t>(value != 0));
  else std::memcpy(place, &whole, dtype->bytes);  // little-endian, as model.so's processors are
}

double padding(const Input &spec, const Compiled &compiled) {
  if (spec.role == "mask" || spec.role == "attention_mask" || spec.role == "decoder_attention_mask")
    return spec.hidden;
  if (spec.role == "token_ids" || spec.role == "decoder_token_ids")
    return static_cast<double>(std::max(compiled.token, spec.low));
  return static_cast<double>(spec.low);
}

void fill_all(Array &array, double value) {
  const size_t bytes = array.dtype->bytes, count = array.count();
  char element[8] = {};
  encode(value, array.dtype, element);
  for (size_t i = 0; i < count; ++i) std::memcpy(writable(array) + i * bytes, element, bytes);
}

}  // namespace

Aligned aligned(size_t bytes) {
  void *data = nullptr;
  if (posix_memalign(&data, 64, std::max<size_t>(bytes, 64))) throw std::bad_alloc();
  return Aligned(static_cast<char *>(data));
}

Owned owned(const DType *dtype, std::vector<int64_t> shape) {
  Owned made;
  made.array.dtype = dtype;
  made.array.shape = std::move(shape);
  made.bytes = aligned(made.array.count() * dtype->bytes);
  made.array.data = made.bytes.get();
  return made;
}

void copy_block(Array &to, const std::vector<int64_t> &place, const Array &from, const std::vector<int64_t> &start,
                const std::vector<int64_t> &extent) {
  const size_t rank = extent.size(), bytes = to.dtype->bytes;
  if (std::any_of(extent.begin(), extent.end(), [](int64_t size) { return size == 0; })) return;
  const std::vector<size_t> to_steps = strides(to), from_steps = strides(from);
  size_t to_at = 0, from_at = 0;
  for (size_t axis = 0; axis < rank; ++axis) {
    to_at += to_steps[axis] * static_cast<size_t>(place[axis]);
    from_at += from_steps[axis] * static_cast<size_t>(start[axis]);
  }
  const size_t run = rank ? static_cast<size_t>(extent[rank - 1]) * bytes : bytes;
  std::vector<int64_t> counter(rank, 0);
  for (;;) {
    size_t to_offset = to_at, from_offset = from_at;
    for (size_t axis = 0; axis + 1 < rank; ++axis) {
      to_offset += to_steps[axis] * static_cast<size_t>(counter[axis]);
      from_offset += from_steps[axis] * static_cast<size_t>(counter[axis]);
    }
    std::memcpy(writable(to) + to_offset, from.data + from_offset, run);
    size_t axis = rank < 2 ? 0 : rank - 1;
    while (axis > 0 && ++counter[axis - 1] == extent[axis - 1]) counter[--axis] = 0;
    if (axis == 0) return;
  }
}

void fill(Array &array, const Input &spec, const Compiled &compiled, const Array &given) {
  const std::vector<int64_t> zeros(array.shape.size(), 0);
  if (given.shape == array.shape) {
    copy_block(array, zeros, given, zeros, given.shape);
    return;
  }
  fill_all(array, padding(spec, compiled));
  copy_block(array, zeros, given, zeros, given.shape);
  for (size_t axis = 0; axis < spec.shape.size(); ++axis) {
    if (compiled.batch < 0 || spec.shape[axis].symbol != compiled.batch) continue;
    std::vector<int64_t> place = zeros, extent = array.shape;
    extent[axis] = 1;
    for (int64_t row = given.shape[axis]; row < array.shape[axis]; ++row) {
      place[axis] = row;
      copy_block(array, place, array, zeros, extent);
    }
  }
}

Owned from_the_start(const Array &given, int64_t size, int64_t reach) {
  Owned made = owned(given.dtype, given.shape);
  std::memcpy(made.bytes.get(), given.data, given.count() * given.dtype->bytes);
  for (size_t i = 0; i < given.count(); ++i) {
    const int64_t value = integer(given, i);
    if (value >= reach) continue;
    const int64_t moved = value + size;
    std::memcpy(made.bytes.get() + i * given.dtype->bytes, &moved, given.dtype->bytes);
  }
  return made;
}

std::vector<Owned> real_tokens(const Input &spec, const Array &mask, const std::vector<int64_t> &own) {
  std::vector<char> real = gw::kept(spec, mask);
  if (!real.empty() && std::find(real.begin(), real.end(), 1) == real.end()) real[0] = 1;  // none runs on nothing
  const DType *dtype = dtype_named("int32");
  std::vector<int32_t> rows, starts(static_cast<size_t>(own[0] + 1), 0);
  const auto length = static_cast<size_t>(mask.shape[1]);
  for (size_t row = 0; row < static_cast<size_t>(own[0]); ++row) {
    for (size_t at = 0; row < static_cast<size_t>(mask.shape[0]) && at < length; ++at)
      if (real[row * length + at]) rows.push_back(static_cast<int32_t>(row * static_cast<size_t>(own[1]) + at));
    starts[row + 1] = static_cast<int32_t>(rows.size());
  }
  std::vector<Owned> made;
  for (auto *each : {&rows, &starts}) {
    made.push_back(owned(dtype, {static_cast<int64_t>(each->size())}));
    std::memcpy(made.back().bytes.get(), each->data(), each->size() * sizeof(int32_t));
  }
  return made;
}

}  // namespace gw

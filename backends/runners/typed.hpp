// Values out of JSON as what they must be, or Damage. The same rules as backends/typed.py.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "failure.hpp"

namespace gw {

using Json = nlohmann::json;

constexpr int64_t kMost = int64_t(1) << 62;  // of a size or a count

// What a manifest must be and isn't.
struct Damage : Failure {
  using Failure::Failure;
};

inline std::string quoted(const Json &value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

inline const Json &member(const Json &object, const char *name) {
  if (!object.is_object()) throw Damage(quoted(object) + " where an object is due");
  auto found = object.find(name);
  if (found == object.end()) throw Damage(std::string("it has no ") + name);
  return *found;
}

inline const Json &table(const Json &value) {
  if (!value.is_object()) throw Damage(quoted(value) + " where an object is due");
  return value;
}

inline const Json &list(const Json &value) {
  if (!value.is_array()) throw Damage(quoted(value) + " where a list is due");
  return value;
}

inline std::string text(const Json &value) {
  if (!value.is_string() || value.get_ref<const std::string &>().find('\0') != std::string::npos)
    throw Damage(quoted(value) + " where a text is due");
  return value.get<std::string>();
}

inline int64_t whole(const Json &value, int64_t low = 0, int64_t high = kMost) {
  bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t(INT64_MAX) : value.is_number_integer();
  if (!fits || value.get<int64_t>() < low || value.get<int64_t>() > high)
    throw Damage(quoted(value) + " where a whole number from " + std::to_string(low) + " to " +
                 std::to_string(high) + " is due");
  return value.get<int64_t>();
}

inline double number(const Json &value, double low, double high) {
  if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
    throw Damage(quoted(value) + " where a number is due");
  return value.get<double>();
}

inline const Json *given(const Json &object, const char *name) {
  auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

}  // namespace gw

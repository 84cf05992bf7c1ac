// Changes a bundle's manifest and a call's inputs at random for some seconds; built with sanitizers, which stop it
// at the first fault. Whatever is refused must say why in one line.
//
//     fuzz BUNDLE SECONDS SEED      BUNDLE is a copy: its manifest is overwritten. Prints what happened how often.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "graphwright.h"
#include "sha256.hpp"

namespace {

std::mt19937_64 randomness;

size_t below(size_t bound) { return bound ? randomness() % bound : 0; }

const char *const kWords[] = {"-1", "0", "1", "2", "3", "64", "4096", "9223372036854775807", "-9223372036854775808",
                              "18446744073709551616", "1e400", "0.5", "null", "true", "[]", "{}", "\"\"", "\"batch\"",
                              "\"length\"", "\"float32\"", "\"int64\"", "\"bool\"", "\"tvm\"", "\"model.onnx\"",
                              "\"../model.onnx\"", "\"\\u0000\"", "\"\xff\"", "\"embedding\"", "\"attention_mask\"",
                              "\"memory\"", "\"token_ids\"", "[[[[", "\"given_by\": \"embedding\","};
const char *const kTypes[] = {"bool", "int8", "int32", "int64", "uint64", "float16", "float32", "float64", "", "str"};

// A run of characters that begin and go on as JSON's numbers and words do.
void replace_value(std::string &text) {
  size_t start = below(text.size());
  while (start < text.size() && !std::strchr("-0123456789\"tfn[{", text[start])) ++start;
  size_t end = start + 1;
  if (start < text.size() && text[start] == '"') {
    while (end < text.size() && text[end] != '"') ++end;
    ++end;
  } else {
    while (end < text.size() && std::strchr("0123456789.eaulr", text[end])) ++end;
  }
  if (end <= text.size()) text.replace(start, end - start, kWords[below(std::size(kWords))]);
}

std::string changed(std::string text) {
  for (size_t times = 1 + below(3); times && text.size() > 100; --times) {
    const size_t at = below(text.size()), count = below(40);
    switch (below(6)) {
      case 0: text[at] = static_cast<char>(randomness()); break;
      case 1: text.erase(at, count); break;
      case 2: text.insert(at, text.substr(below(text.size()), count)); break;
      default: replace_value(text);
    }
  }
  return text;
}

// With the hash of its own bytes, so that it is read on.
std::string sealed(std::string text) {
  const size_t at = std::strlen("{\n \"sha256\": \"");
  if (text.size() < at + 64) return text;
  text.replace(at, 64, 64, '0');
  return text.replace(at, 64, gw::sha256_of(text));
}

void expect_a_sentence() {
  const std::string why = gw_error();
  if (why.empty() || why.find('\n') != std::string::npos) {
    std::fprintf(stderr, "not one sentence: %s\n", why.c_str());
    std::abort();
  }
}

// Of an element; names that are none have one.
size_t bytes_of(const char *dtype) {
  const std::string name = dtype;
  for (const char *bits : {"64", "32", "16"})
    if (name.find(bits) != std::string::npos) return static_cast<size_t>(std::atoi(bits)) / 8;
  return 1;
}

bool run(gw_bundle *bundle) {
  const size_t count = gw_input_count(bundle);
  std::vector<std::vector<int64_t>> shapes(count);
  std::vector<std::vector<char>> data(count);
  std::vector<gw_array> inputs(count);
  const int64_t sizes[] = {static_cast<int64_t>(below(5)), static_cast<int64_t>(1 + below(14))};
  for (size_t i = 0; i < count; ++i) {
    inputs[i] = *gw_input(bundle, i);
    size_t elements = 1;
    for (size_t axis = 0; axis < inputs[i].rank; ++axis) {
      const int64_t wanted = inputs[i].shape[axis];
      shapes[i].push_back(wanted < 0 ? sizes[axis % 2] : wanted > 1000 ? 1000 : wanted);
      elements *= static_cast<size_t>(shapes[i].back());
      if (elements > 100000) return false;
    }
    if (!below(40)) inputs[i].dtype = kTypes[below(std::size(kTypes))];
    // As many bytes as it says, so that what takes it for another type is seen to read on.
    const size_t width = bytes_of(inputs[i].dtype);
    data[i].assign(elements * width, 0);
    for (size_t at = 0; at < elements; ++at) {
      const int64_t value = below(30) ? static_cast<int64_t>(below(40)) : static_cast<int64_t>(randomness());
      std::memcpy(data[i].data() + at * width, &value, width);
    }
    inputs[i].data = data[i].data();
    switch (below(40)) {
      case 0: inputs[i].data = nullptr; break;
      case 1: inputs[i].name = "other"; break;
      case 2: inputs[i].name = nullptr; break;
      case 3:
        if (!shapes[i].empty()) shapes[i][0] = static_cast<int64_t>(randomness());
        break;
      case 4: shapes[i].push_back(0); break;
    }
    inputs[i].shape = shapes[i].data();
    inputs[i].rank = shapes[i].size();
  }
  gw_result *result = nullptr;
  if (gw_run(bundle, inputs.data(), below(30) ? count : below(count + 1), &result)) {
    expect_a_sentence();
    return false;
  }
  unsigned sum = 0;  // every byte of what came out can be read
  for (size_t i = 0; i < gw_result_count(result); ++i) {
    const gw_array *array = gw_result_array(result, i);
    size_t bytes = std::strcmp(array->dtype, "float32") ? 1 : 4;
    for (size_t axis = 0; axis < array->rank; ++axis) bytes *= static_cast<size_t>(array->shape[axis]);
    for (size_t at = 0; at < bytes; ++at) sum += static_cast<const unsigned char *>(array->data)[at];
  }
  gw_result_free(result);
  return sum != 1;
}

}  // namespace

int main(int, char **words) {
  const std::string folder = words[1], path = folder + "/manifest.json";
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(words[2]));
  randomness.seed(static_cast<uint64_t>(std::atoll(words[3])));
  std::ifstream file(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(file)), {});
  long loaded = 0, refused = 0, ran = 0, failed = 0;
  while (std::chrono::steady_clock::now() < end) {
    std::string text = below(10) ? changed(whole) : whole;
    if (below(8)) text = sealed(text);
    std::ofstream(path, std::ios::binary) << text;
    gw_bundle *bundle = nullptr;
    if (gw_load(folder.c_str(), 1, &bundle)) {
      expect_a_sentence();
      ++refused;
      continue;
    }
    ++loaded;
    for (int calls = 0; calls < 10; ++calls) ++(run(bundle) ? ran : failed);
    gw_free(bundle);
  }
  std::printf("%ld %ld %ld %ld\n", loaded, refused, ran, failed);
}

// manifest.json: what a bundle is, read with distrust. The same rules as backends/bundles/manifest.py.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace gw {

// A size: fixed, or that of a symbol (its number).
struct Dim {
  int64_t size = 0;
  int symbol = -1;
};

struct DType {
  const char *name;
  size_t bytes;
  int onnx;           // ONNXTensorElementDataType
  int kind, bits;     // DLPack's type code, and bits
};

// nullptr for none that arrays can have here; strings are one of those.
const DType *dtype_named(const std::string &name);
const DType *dtype_of_onnx(int code);

struct Input {
  std::string name, role, given_by;
  const DType *dtype = nullptr;
  std::vector<Dim> shape;
  std::optional<int64_t> high;
  int64_t low = 0, reach = 0;
  std::optional<Dim> follows;
  bool indexes = false;
  double hidden = 0;
};

struct Symbol {
  std::string name;
  std::optional<std::pair<int64_t, int64_t>> bounds;
};

struct Route {
  int64_t batch, length;
  double padding;
  std::string file;
};

struct Place {
  const DType *dtype;
  std::vector<int64_t> shape;
  int64_t offset;
};

struct Function {
  std::string name;
  std::vector<int64_t> sizes;  // by symbol
  std::vector<std::string> weights;
  int mask = -1;               // the input, or -1
};

struct Compiled {
  std::string arch, module;    // module: the file that holds the functions
  std::vector<std::string> needs;
  std::map<std::string, Place> places;
  std::vector<Function> functions;
  int batch = -1, length = -1;  // symbols that padding may go along, or -1
  std::vector<std::vector<int>> axes;
  int64_t token = 0;
};

// A whole build in a bundle of several.
struct IsaVariant {
  std::string target, arch;
  std::vector<std::string> needs;
};

struct File {
  std::string sha256;
  int64_t bytes;
};

struct Manifest {
  std::map<std::string, File> files;
  std::vector<Input> inputs;
  std::vector<std::string> outputs;
  std::vector<Symbol> symbols;
  std::vector<Route> dispatch;
  std::optional<Compiled> compiled;
  int threads = 0;  // 0: nobody measured
  // In a bundle of several builds, what each is for, best first; all else is then of the one that runs on this
  // processor, which is `chosen`, or of the first where none does and it is -1.
  std::vector<IsaVariant> isa;
  int chosen = -1;
};

// Both throw Failure. Nothing is loaded before both have returned.
Manifest read_manifest(const std::string &folder);
void verify_files(const std::string &folder, const Manifest &manifest);

}  // namespace gw

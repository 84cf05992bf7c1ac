#include "manifest.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "failure.hpp"
#include "files.hpp"
#include "processor.hpp"
#include "sha256.hpp"
#include "typed.hpp"

namespace gw {
namespace {

constexpr int kFormat = 3, kSeveral = 3;
constexpr size_t kMostBytes = size_t(16) << 20;
constexpr size_t kDeepest = 200;
const std::string kHead = "{\n \"sha256\": \"", kTail = "\",\n";

constexpr DType kTypes[] = {
    {"bool", 1, 9, 6, 8},     {"int8", 1, 3, 0, 8},      {"int16", 2, 5, 0, 16},    {"int32", 4, 6, 0, 32},
    {"int64", 8, 7, 0, 64},   {"uint8", 1, 2, 1, 8},     {"uint16", 2, 4, 1, 16},   {"uint32", 4, 12, 1, 32},
    {"uint64", 8, 13, 1, 64}, {"float16", 2, 10, 2, 16}, {"float32", 4, 1, 2, 32},  {"float64", 8, 11, 2, 64},
    {"bfloat16", 2, 16, 4, 16}};

class Parser {
 public:
  explicit Parser(const Json &record) : record_(table(record)) {}

  Manifest parse() {
    for (auto &[name, entry] : table(member(record_, "files")).items())
      found_.files[inside(name)] = {text(member(entry, "sha256")), whole(member(entry, "bytes"))};
    for (auto &[name, bounds] : table(member(record_, "symbols")).items()) {
      if (list(bounds).size() != 2) throw Damage("bounds of " + name + " that are no two numbers");
      int64_t low = whole(bounds[0]), high = whole(bounds[1]);
      if (low > high) throw Damage("bounds from " + std::to_string(low) + " to " + std::to_string(high));
      found_.symbols[static_cast<size_t>(symbol(name))].bounds = {low, high};
    }
    for (auto &spec : list(member(record_, "inputs"))) found_.inputs.push_back(input(spec));
    if (found_.inputs.empty()) throw Damage("it has no inputs");
    for (auto &name : list(member(record_, "outputs"))) found_.outputs.push_back(text(name));
    auto *backend = given(record_, "backend");
    if (backend && *backend == "tvm") {
      found_.compiled = compiled(member(record_, "compiled"));
      listed(found_.compiled->module), listed("model.weights");
    } else {
      routes();
    }
    if (auto *threads = given(record_, "threads")) found_.threads = static_cast<int>(whole(*threads, 1, 4096));
    return std::move(found_);
  }

 private:
  void routes() {
    std::map<std::string, std::string> graphs;
    for (auto &[variant, file] : table(member(record_, "graphs")).items()) graphs[variant] = listed(text(file));
    listed("model.onnx");
    for (auto &row : list(member(record_, "dispatch"))) {
      auto graph = graphs.find(text(member(row, "graph")));
      if (graph == graphs.end()) throw Damage("the dispatch table names no graph of the bundle");
      found_.dispatch.push_back({whole(member(row, "batch")), whole(member(row, "length")),
                                 number(member(row, "padding"), 0, 1), graph->second});
    }
  }

  std::string listed(const std::string &name) const {
    if (!found_.files.count(name)) throw Damage("the graph " + name + " is not among its files");
    return name;
  }

  // A file name that stays in the bundle: relative, without `..`, spelled the one way.
  static std::string inside(const std::string &name) {
    bool wrong = name.empty() || name.find_first_of(std::string("\\:\0", 3)) != std::string::npos;
    size_t start = 0;
    while (!wrong && start <= name.size()) {
      size_t end = std::min(name.find('/', start), name.size());
      std::string part = name.substr(start, end - start);
      wrong = part.empty() || part == "." || part == "..";
      start = end + 1;
    }
    if (wrong) throw Damage("the file name " + quoted(Json(name)) + " leads out of the bundle");
    return name;
  }

  int symbol(const std::string &name) {
    for (size_t i = 0; i < found_.symbols.size(); ++i)
      if (found_.symbols[i].name == name) return static_cast<int>(i);
    found_.symbols.push_back({name, std::nullopt});
    return static_cast<int>(found_.symbols.size() - 1);
  }

  int known(const Json &value) {
    if (value.is_null()) return -1;
    std::string name = text(value);
    for (auto &spec : found_.inputs)
      for (auto &dim : spec.shape)
        if (dim.symbol >= 0 && found_.symbols[static_cast<size_t>(dim.symbol)].name == name) return dim.symbol;
    throw Damage("it pads along what no input has");
  }

  Dim dim(const Json &value) {
    if (value.is_string()) return {0, symbol(text(value))};
    return {whole(value), -1};
  }

  const DType *dtype(const Json &value) {
    auto *found = dtype_named(text(value));
    if (!found) throw Damage(quoted(value) + " where the name of a dtype is due that C arrays have");
    return found;
  }

  Input input(const Json &spec) {
    Input found;
    found.name = text(member(spec, "name"));
    found.dtype = dtype(member(spec, "dtype"));
    for (auto &size : list(member(spec, "shape"))) found.shape.push_back(dim(size));
    if (auto *role = given(spec, "role")) found.role = text(*role);
    if (auto *high = given(spec, "high")) found.high = whole(*high, -kMost);
    if (auto *low = given(spec, "low")) found.low = whole(*low, -kMost);
    if (auto *reach = given(spec, "reach")) found.reach = whole(*reach, -kMost);
    if (auto *follows = given(spec, "follows")) found.follows = dim(*follows);
    if (auto *hidden = given(spec, "hidden")) found.hidden = number(*hidden, -INFINITY, INFINITY);
    if (auto *by = given(spec, "given_by")) found.given_by = text(*by);
    auto *indexes = given(spec, "indexes");
    found.indexes = indexes && indexes->is_boolean() && indexes->get<bool>();
    for (auto &other : found_.inputs)
      if (other.name == found.name) throw Damage("two inputs are called " + found.name);
    return found;
  }

  Compiled compiled(const Json &record) {
    Compiled found;
    found.arch = text(member(record, "arch"));
    for (auto &need : list(member(record, "needs"))) found.needs.push_back(text(need));
    auto *module = record.find("module") == record.end() ? nullptr : &record["module"];
    found.module = module ? text(*module) : "model.so";
    for (auto &place : list(member(record, "places"))) {
      Place made{dtype(member(place, "dtype")), {}, whole(member(place, "offset"))};
      for (auto &size : list(member(place, "shape"))) made.shape.push_back(whole(size));
      found.places[text(member(place, "name"))] = made;
    }
    std::set<int> used;
    for (auto &spec : found_.inputs)
      for (auto &each : spec.shape)
        if (each.symbol >= 0) used.insert(each.symbol);
    for (auto &each : list(member(record, "functions"))) found.functions.push_back(function(each, found, used));
    if (found.functions.empty()) throw Damage("it has no compiled function");
    auto &padding = member(record, "padding");
    found.batch = known(member(padding, "batch"));
    found.length = known(member(padding, "length"));
    found.token = whole(member(padding, "token"), -1);
    for (auto &row : list(member(padding, "axes"))) {
      found.axes.emplace_back();
      for (auto &axis : list(row)) found.axes.back().push_back(known(axis));
    }
    if (found.axes.size() != found_.outputs.size())
      throw Damage("the outputs listed are not those of the functions");
    for (auto &spec : found_.inputs) {
      bool ids = spec.role == "token_ids" || spec.role == "decoder_token_ids";
      if (ids && spec.high.value_or(0) && !(spec.low <= found.token && found.token < *spec.high))
        throw Damage(spec.name + " has no id " + std::to_string(found.token) + ", which padding would hold");
    }
    return found;
  }

  Function function(const Json &each, const Compiled &owner, const std::set<int> &used) {
    Function made;
    made.name = text(member(each, "name"));
    made.sizes.assign(found_.symbols.size(), 0);
    std::set<int> has;
    for (auto &[name, count] : table(member(each, "sizes")).items())
      for (size_t i = 0; i < found_.symbols.size(); ++i)
        if (found_.symbols[i].name == name) has.insert(static_cast<int>(i)), made.sizes[i] = whole(count);
    if (has != used || has.size() != member(each, "sizes").size())
      throw Damage(made.name + " was not compiled for the inputs listed");
    for (auto &weight : list(member(each, "weights"))) {
      made.weights.push_back(text(weight));
      if (!owner.places.count(made.weights.back())) throw Damage(made.name + " takes a weight that is not listed");
    }
    auto &mask = member(each, "mask");
    if (mask.is_null()) return made;
    for (size_t i = 0; i < found_.inputs.size(); ++i)
      if (found_.inputs[i].name == text(mask)) made.mask = static_cast<int>(i);
    if (made.mask < 0 || found_.inputs[static_cast<size_t>(made.mask)].shape.size() != 2)
      throw Damage(made.name + " takes a mask that is not listed");
    return made;
  }

  const Json &record_;
  Manifest found_;
};

bool nested_too_deeply(const std::string &data) {
  size_t depth = 0;
  bool quoting = false;
  for (size_t i = 0; i < data.size(); ++i) {
    if (quoting && data[i] == '\\') ++i;
    else if (data[i] == '"') quoting = !quoting;
    else if (!quoting && (data[i] == '[' || data[i] == '{') && ++depth > kDeepest) return true;
    else if (!quoting && (data[i] == ']' || data[i] == '}') && depth) --depth;
  }
  return false;
}

// A bundle of several builds: all are looked at, whatever this processor is.
Manifest several(const Json &record) {
  std::vector<IsaVariant> variants;
  std::vector<Manifest> found;
  for (auto &each : list(member(record, "variants"))) {
    IsaVariant variant{text(member(each, "target")), text(member(each, "arch")), {}};
    for (auto &need : list(member(each, "needs"))) variant.needs.push_back(text(need));
    Json whole_record = table(member(each, "manifest"));
    whole_record["files"] = member(record, "files");
    Manifest build = Parser(whole_record).parse();
    if (build.compiled && (build.compiled->arch != variant.arch || build.compiled->needs != variant.needs))
      throw Damage(variant.target + " is for another processor than its functions");
    variants.push_back(std::move(variant));
    found.push_back(std::move(build));
  }
  if (found.empty()) throw Damage("it has no variant");
  const int chosen = chosen_variant(variants);
  Manifest made = std::move(found[static_cast<size_t>(std::max(chosen, 0))]);
  made.isa = std::move(variants), made.chosen = chosen;
  return made;
}

// Whether a manifest's bytes are those that were written; false where they don't say.
bool unchanged(const std::string &path, std::string data) {
  if (data.compare(0, kHead.size(), kHead) || data.size() < kHead.size() + 64 + kTail.size()) return false;
  std::string told = data.substr(kHead.size(), 64);
  if (told.find_first_not_of("0123456789abcdef") != std::string::npos ||
      data.compare(kHead.size() + 64, kTail.size(), kTail))
    return false;
  data.replace(kHead.size(), 64, 64, '0');
  if (sha256_of(data) != told)
    throw Failure(path + " has changed since the bundle was built: copy or build the bundle again");
  return true;
}

}  // namespace

const DType *dtype_named(const std::string &name) {
  for (auto &type : kTypes)
    if (name == type.name) return &type;
  return nullptr;
}

const DType *dtype_of_onnx(int code) {
  for (auto &type : kTypes)
    if (code == type.onnx) return &type;
  return nullptr;
}

Manifest read_manifest(const std::string &folder) {
  const std::string path = folder + "/manifest.json";
  const std::string data = read_whole(path, kMostBytes);
  const bool whole_file = unchanged(path, data);
  Json record;
  if (!nested_too_deeply(data)) record = Json::parse(data, nullptr, false);
  if (record.is_discarded() || record.is_null()) throw Failure(path + " is not valid JSON: build the bundle again");
  auto *format = record.is_object() ? given(record, "format") : nullptr;
  if (!format || !format->is_number_integer() || *format < 1)
    throw Failure(path + " is not the manifest of a graphwright bundle");
  if (!whole_file)
    throw Failure(path + " carries no hash of itself: it was changed, or written by an older graphwright: "
                         "build the bundle again");
  if (*format > kFormat)
    throw Failure(folder + " has bundle format " + quoted(*format) + " and this runner reads up to " +
                  std::to_string(kFormat) + ": build it anew with optimize runner");
  try {
    return *format < kSeveral ? Parser(record).parse() : several(record);
  } catch (const Damage &damage) {
    throw Failure(path + " is damaged (" + damage.what() + "): build the bundle again");
  }
}

}  // namespace gw

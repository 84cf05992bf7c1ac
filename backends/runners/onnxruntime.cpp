// Graphs run by ONNX Runtime, through its C API.
//
// Neither its wheel nor Debian 12 brings the API's header. Its table of functions only ever grows at the end (its
// source asserts the sizes of past versions), so the entries used here are named by their numbers in version 5.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "engine.hpp"
#include "failure.hpp"
#include "library.hpp"

namespace gw {
namespace {

struct Base {
  const void *(*get_api)(uint32_t version);
  const char *(*get_version)();
};

enum Entry {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kCreateSession = 7,
  kRun = 9,
  kCreateSessionOptions = 10,
  kSetSessionLogSeverityLevel = 22,
  kSetSessionGraphOptimizationLevel = 23,
  kSetIntraOpNumThreads = 24,
  kSessionGetInputCount = 30,
  kSessionGetOutputCount = 31,
  kSessionGetInputName = 36,
  kSessionGetOutputName = 37,
  kCreateTensorWithDataAsOrtValue = 49,
  kIsTensor = 50,
  kGetTensorMutableData = 51,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kCreateCpuMemoryInfo = 69,
  kAllocatorFree = 76,
  kGetAllocatorWithDefaultOptions = 78,
  kReleaseStatus = 93,
  kReleaseSession = 95,
  kReleaseValue = 96,
  kReleaseTensorTypeAndShapeInfo = 99,
  kReleaseSessionOptions = 100,
  kAddSessionConfigEntry = 130,
};

constexpr uint32_t kVersion = 5;
constexpr int kSilent = 4, kEveryOptimization = 99, kArena = 1, kDefaultMemory = 0;
constexpr double kPaddingWeight = 8.0;  // as in backends/running/routed.py

// ONNX Runtime's reason in one line, without the place in its source.
std::string reason(const char *message) {
  std::string text = message ? message : "";
  text = text.substr(0, text.find('\n'));
  if (!text.empty() && text[0] == '/')
    if (size_t end = text.find(") "); end != std::string::npos && text.find(".cc:") < end) text = text.substr(end + 2);
  return text.substr(0, 300);
}

class Api {
 public:
  static Api &get() {
    static Api api;  // for good: sessions of several bundles share it
    return api;
  }

  template <typename... Arguments>
  void call(const std::string &what, Entry entry, Arguments... arguments) const {
    void *status = reinterpret_cast<void *(*)(Arguments...)>(table_[entry])(arguments...);
    if (!status) return;
    const std::string why = reason(reinterpret_cast<const char *(*)(const void *)>(table_[kGetErrorMessage])(status));
    release(kReleaseStatus, status);
    throw Failure(what + ": " + why);
  }

  void release(Entry entry, void *object) const { reinterpret_cast<void (*)(void *)>(table_[entry])(object); }

  void *environment = nullptr, *allocator = nullptr, *memory = nullptr;

 private:
  Api()
      : library_("GRAPHWRIGHT_ONNXRUNTIME", "libonnxruntime.so.1",
                 "install ONNX Runtime, or name the file in GRAPHWRIGHT_ONNXRUNTIME") {
    auto base = reinterpret_cast<const Base *(*)()>(library_.symbol("OrtGetApiBase"))();
    table_ = static_cast<void *const *>(base->get_api(kVersion));
    if (!table_) throw Failure(std::string("ONNX Runtime ") + base->get_version() + " is too old: install 1.23");
    const std::string what = "ONNX Runtime can't be started";
    call(what, kCreateEnv, kSilent, "graphwright", &environment);
    call(what, kGetAllocatorWithDefaultOptions, &allocator);
    call(what, kCreateCpuMemoryInfo, kArena, kDefaultMemory, &memory);
  }

  Library library_;
  void *const *table_ = nullptr;
};

// Something of ONNX Runtime's, released at the end.
class Owned {
 public:
  explicit Owned(Entry release) : release_(release) {}
  Owned(Owned &&other) noexcept : object(std::exchange(other.object, nullptr)), release_(other.release_) {}
  Owned(const Owned &) = delete;
  ~Owned() {
    if (object) Api::get().release(release_, object);
  }

  void *object = nullptr;

 private:
  Entry release_;
};

class Values : public Outputs {
 public:
  std::vector<Owned> values;
};

class Session {
 public:
  Session(const std::string &path, const std::string &name, const Manifest &manifest, int threads)
      : session_(kReleaseSession), name_(name) {
    const Api &api = Api::get();
    const std::string what = "ONNX Runtime cannot load " + name;
    Owned options(kReleaseSessionOptions);
    api.call(what, kCreateSessionOptions, &options.object);
    // As ir/onnx/runtime.py and backends/runtimes/session.py set them.
    api.call(what, kAddSessionConfigEntry, options.object, "session.qdq_matmulnbits_accuracy_level", "1");
    api.call(what, kSetSessionGraphOptimizationLevel, options.object, kEveryOptimization);
    api.call(what, kSetSessionLogSeverityLevel, options.object, kSilent);
    if (threads) api.call(what, kSetIntraOpNumThreads, options.object, threads);
    api.call(what, kCreateSession, api.environment, path.c_str(), options.object, &session_.object);
    inputs_ = names(kSessionGetInputCount, kSessionGetInputName);
    outputs_ = names(kSessionGetOutputCount, kSessionGetOutputName);
    for (auto &input : inputs_) {
      size_t at = 0;
      while (at < manifest.inputs.size() && manifest.inputs[at].name != input) ++at;
      if (at == manifest.inputs.size()) throw Failure(name + " takes " + input + ", which the manifest doesn't list");
      order_.push_back(at);
    }
    if (inputs_.size() != manifest.inputs.size() || outputs_.size() != manifest.outputs.size())
      throw Failure(name + " has other inputs or outputs than the manifest lists");
  }

  std::unique_ptr<Outputs> run(const Call &call) const {
    const Api &api = Api::get();
    const std::string what = "ONNX Runtime failed on this call";
    std::vector<Owned> given;
    std::vector<const void *> pointers;
    for (size_t at : order_) {
      const Array &array = call.arrays[at];
      given.emplace_back(kReleaseValue);
      char nothing = 0;  // of no elements: an address is wanted all the same
      void *data = array.data ? const_cast<char *>(array.data) : &nothing;
      api.call(what, kCreateTensorWithDataAsOrtValue, api.memory, data, array.count() * array.dtype->bytes,
               array.shape.data(), array.shape.size(), array.dtype->onnx, &given.back().object);
      pointers.push_back(given.back().object);
    }
    std::vector<const char *> input_names, output_names;
    for (auto &name : inputs_) input_names.push_back(name.c_str());
    for (auto &name : outputs_) output_names.push_back(name.c_str());
    std::vector<void *> found(outputs_.size(), nullptr);
    auto made = std::make_unique<Values>();
    made->values.reserve(found.size());
    for (size_t i = 0; i < found.size(); ++i) made->values.emplace_back(kReleaseValue);
    api.call(what, kRun, session_.object, static_cast<void *>(nullptr), input_names.data(), pointers.data(),
             pointers.size(), output_names.data(), output_names.size(), found.data());
    for (size_t i = 0; i < found.size(); ++i) made->values[i].object = found[i];
    for (size_t i = 0; i < found.size(); ++i) made->arrays.push_back(described(outputs_[i], found[i]));
    return made;
  }

 private:
  static Array described(const std::string &name, void *value) {
    const Api &api = Api::get();
    const std::string what = "the output " + name + " can't be read";
    int tensor = 0, type = 0;
    if (value) api.call(what, kIsTensor, value, &tensor);
    if (!tensor) throw Failure(what + ": it is no array");
    Owned info(kReleaseTensorTypeAndShapeInfo);
    api.call(what, kGetTensorTypeAndShape, value, &info.object);
    api.call(what, kGetTensorElementType, info.object, &type);
    Array array;
    array.dtype = dtype_of_onnx(type);
    if (!array.dtype) throw Failure(what + ": arrays in C can't hold its elements");
    size_t rank = 0;
    api.call(what, kGetDimensionsCount, info.object, &rank);
    array.shape.resize(rank);
    api.call(what, kGetDimensions, info.object, array.shape.data(), rank);
    void *data = nullptr;
    api.call(what, kGetTensorMutableData, value, &data);
    array.data = static_cast<const char *>(data);
    return array;
  }

  std::vector<std::string> names(Entry counted, Entry named) const {
    const Api &api = Api::get();
    const std::string what = name_ + " can't be read";
    size_t count = 0;
    api.call(what, counted, session_.object, &count);
    std::vector<std::string> found;
    for (size_t i = 0; i < count; ++i) {
      char *name = nullptr;
      api.call(what, named, session_.object, i, api.allocator, &name);
      found.emplace_back(name);
      api.call(what, kAllocatorFree, api.allocator, static_cast<void *>(name));
    }
    return found;
  }

  Owned session_;
  std::string name_;
  std::vector<std::string> inputs_, outputs_;
  std::vector<size_t> order_;
};

// Graphs of one program; each call runs the one measured fastest for calls like it (backends/running/routed.py).
class Routed : public Engine {
 public:
  Routed(const std::string &folder, const Manifest &manifest, int threads, const Stamps &stamps)
      : folder_(folder), manifest_(manifest), threads_(threads), stamps_(stamps) {
    Api::get();
    for (auto &route : manifest.dispatch)
      several_ = several_ || route.file != manifest.dispatch.front().file;
  }

  std::unique_ptr<Outputs> run(const Call &call) override { return session(graph(call)).run(call); }

 private:
  std::string graph(const Call &call) const {
    auto &routes = manifest_.dispatch;
    if (!several_) return routes.empty() ? "model.onnx" : routes.front().file;
    const Coordinates here = coordinates(manifest_, call);
    const Route *best = nullptr;
    double least = INFINITY;
    for (auto &route : routes) {
      const double batch = log2of(route.batch) - log2of(here.batch);
      const double length = log2of(route.length) - log2of(here.length);
      const double padding = kPaddingWeight * route.padding - kPaddingWeight * here.padding;
      const double distance = batch * batch + length * length + padding * padding;
      if (distance < least) least = distance, best = &route;
    }
    return best->file;
  }

  static double log2of(int64_t size) { return std::log2(static_cast<double>(std::max<int64_t>(size, 1))); }

  const Session &session(const std::string &graph) {
    std::lock_guard<std::mutex> held(lock_);
    auto found = sessions_.find(graph);
    if (found == sessions_.end()) {
      stamps_.check();
      found = sessions_.try_emplace(graph, folder_ + "/" + graph, graph, manifest_, threads_).first;
    }
    return found->second;
  }

  const std::string folder_;
  const Manifest &manifest_;
  const int threads_;
  const Stamps &stamps_;
  bool several_ = false;
  std::mutex lock_;
  std::map<std::string, Session> sessions_;
};

}  // namespace

std::unique_ptr<Engine> onnxruntime_engine(const std::string &folder, const Manifest &manifest, int threads,
                                           const Stamps &stamps) {
  return std::make_unique<Routed>(folder, manifest, threads, stamps);
}

}  // namespace gw

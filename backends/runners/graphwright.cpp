// The C ABI over what the other files do: no exception leaves it.
#include "graphwright.h"

#include <sched.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <thread>

#include "call.hpp"
#include "engine.hpp"
#include "failure.hpp"
#include "files.hpp"
#include "manifest.hpp"
#include "processor.hpp"

namespace {

thread_local std::string last_error;

// A gw_array and what it points to.
struct Described {
  std::string name;
  std::vector<int64_t> shape;
  gw_array array{};
};

int cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(CPU_COUNT(&set), 1);
  return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

template <typename Work>
int guarded(Work work) noexcept {
  try {
    work();
    return 0;
  } catch (const std::bad_alloc &) {
    last_error = "there is not enough memory";
  } catch (const std::exception &error) {
    last_error = error.what();
    std::replace(last_error.begin(), last_error.end(), '\n', ' ');
  } catch (...) {
    last_error = "something failed without a reason";
  }
  return 1;
}

}  // namespace

struct gw_bundle {
  gw_bundle(const std::string &folder, int threads)
      : manifest(gw::read_manifest(folder)), stamps(folder, manifest) {
    gw::verify_files(folder, manifest);
    if (!manifest.isa.empty() && manifest.chosen < 0) throw gw::Failure(gw::no_variant(folder, manifest.isa));
    const int here = threads ? threads : manifest.threads ? std::min(manifest.threads, cpus()) : 0;
    if (manifest.compiled) engine = gw::tvm_engine(folder, manifest, here ? here : cpus());
    else engine = gw::onnxruntime_engine(folder, manifest, here, stamps);
    for (auto &spec : manifest.inputs) {
      Described &made = inputs.emplace_back();
      for (auto &dim : spec.shape) made.shape.push_back(dim.symbol < 0 ? dim.size : -1);
      made.array = {spec.name.c_str(), spec.dtype->name, made.shape.data(), made.shape.size(), nullptr};
    }
    for (auto &name : manifest.outputs) outputs.emplace_back().array.name = name.c_str();
  }

  gw::Manifest manifest;
  gw::Stamps stamps;
  std::unique_ptr<gw::Engine> engine;
  std::deque<Described> inputs, outputs;
};

struct gw_result {
  std::unique_ptr<gw::Outputs> outputs;
  std::deque<Described> described;
};

extern "C" {

int gw_load(const char *directory, int threads, gw_bundle **bundle) {
  if (bundle) *bundle = nullptr;
  return guarded([&] {
    if (!directory || !bundle) throw gw::Failure("gw_load takes a directory and where to put the bundle");
    if (threads < 0 || threads > 4096) throw gw::Failure("a bundle runs on 1 to 4096 threads, or 0 for its own number");
    *bundle = new gw_bundle(directory, threads);
  });
}

const char *gw_variant(const gw_bundle *bundle) {
  if (!bundle || bundle->manifest.chosen < 0) return "";
  return bundle->manifest.isa[static_cast<size_t>(bundle->manifest.chosen)].target.c_str();
}

size_t gw_input_count(const gw_bundle *bundle) { return bundle ? bundle->inputs.size() : 0; }
size_t gw_output_count(const gw_bundle *bundle) { return bundle ? bundle->outputs.size() : 0; }

const gw_array *gw_input(const gw_bundle *bundle, size_t number) {
  return number < gw_input_count(bundle) ? &bundle->inputs[number].array : nullptr;
}

const gw_array *gw_output(const gw_bundle *bundle, size_t number) {
  return number < gw_output_count(bundle) ? &bundle->outputs[number].array : nullptr;
}

int gw_run(gw_bundle *bundle, const gw_array *inputs, size_t count, gw_result **result) {
  if (result) *result = nullptr;
  return guarded([&] {
    if (!bundle || !result) throw gw::Failure("gw_run takes a bundle and where to put the result");
    const gw::Call call(bundle->manifest, inputs, count);
    auto made = std::make_unique<gw_result>();
    made->outputs = bundle->engine->run(call);
    for (size_t i = 0; i < made->outputs->arrays.size(); ++i) {
      const gw::Array &array = made->outputs->arrays[i];
      Described &each = made->described.emplace_back();
      each.name = bundle->manifest.outputs[i];
      each.array = {each.name.c_str(), array.dtype->name, array.shape.data(), array.shape.size(), array.data};
    }
    *result = made.release();
  });
}

size_t gw_result_count(const gw_result *result) { return result ? result->described.size() : 0; }

const gw_array *gw_result_array(const gw_result *result, size_t number) {
  return number < gw_result_count(result) ? &result->described[number].array : nullptr;
}

void gw_result_free(gw_result *result) { delete result; }
void gw_free(gw_bundle *bundle) { delete bundle; }
const char *gw_error(void) { return last_error.c_str(); }

}  // extern "C"

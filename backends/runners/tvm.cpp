// Functions compiled by TVM, as backends/tvm/run/runtime.py runs them.
#include "engine.hpp"
#include "failure.hpp"

#if __has_include(<tvm/ffi/c_api.h>)

#include <sched.h>

#include <algorithm>
#include <cstring>

#include "choice.hpp"
#include "fitting.hpp"
#include "processor.hpp"
#include "results.hpp"
#include "tvm_api.hpp"
#include "weights.hpp"
#include "worker.hpp"

namespace gw {
namespace {

constexpr int kCpu = 1, kPooled = 2, kOneCpuEach = -2, kAllCpus = -3;  // of TVM

// One compiled size, its weights bound to it.
struct Bound {
  Any function;
  std::vector<Owned> inputs;
  std::vector<Any> tensors;
};

class Machine : public Engine {
 public:
  Machine(const std::string &folder, const Manifest &manifest, int threads)
      : manifest_(manifest), compiled_(*manifest.compiled), weights_(folder + "/model.weights", compiled_) {
    worker_.do_work([&] {
      begin(threads);
      try {
        prepare(folder + "/" + compiled_.module);
      } catch (const Failure &failure) {
        throw Failure(folder + "/" + compiled_.module + " can't be loaded (" + failure.what() + "): build the bundle again");
      }
    });
  }

  ~Machine() override {
    worker_.do_work([&] {
      functions_.clear();
      machine_ = Any();
      library_ = Any();
    });
  }

  std::unique_ptr<Outputs> run(const Call &call) override {
    const auto plan = pieces(manifest_, call.sizes);
    std::vector<Owned> moved;
    const std::vector<Array> arrays = from_start(call, moved);
    auto made = std::make_unique<Results>();
    worker_.do_work([&] {
      try {
        int64_t start = 0;
        for (auto &[number, rows] : plan) {
          made->given.push_back(rows ? run_piece(number, call, arrays, start, rows)
                                     : run_one(number, arrays));
          start += rows;
        }
      } catch (const Failure &failure) {
        throw Failure(std::string("TVM failed on this call: ") + failure.what());
      }
    });
    join(*made, plan, call.sizes);
    return made;
  }

 private:
  // Gives the thread that calls a pool of its own.
  static void begin(int threads) {
    Ffi::get();
    const std::vector<int> cpus = picked_cpus(threads), allowed = allowed_cpus();
    setenv("TVM_THREAD_POOL_SPIN_COUNT", "10000", 0);  // about 3 ms, as in executor.py
    configure(kOneCpuEach, cpus.size(), cpus);
    if (cpus.size() >= allowed.size()) return;
    if (cpus.size() > 1) {
      configure(kAllCpus, cpus.size(), allowed);
      return;
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int cpu : allowed) CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
  }

  static void configure(int mode, size_t threads, const std::vector<int> &cpus) {
    std::vector<std::string> names;
    for (int cpu : cpus) names.push_back(std::to_string(cpu));
    std::vector<Any> texts;
    for (auto &name : names) texts.emplace_back(name.c_str());
    std::vector<const Any *> given;
    for (auto &text : texts) given.push_back(&text);
    const Any list = global("ffi.Array").call(given);
    global("runtime.config_threadpool")(Any(mode), Any(static_cast<int64_t>(threads)), list);
  }

  void prepare(const std::string &path) {
    library_ = global("ffi.ModuleLoadFromFile")(Any(path.c_str()));
    global("ffi.ModuleGlobalsAdd")(library_);  // its code outlives whatever it made
    machine_ = member(library_, "vm_load_executable")();
    member(machine_, "vm_initialization")(Any(kCpu), Any(0), Any(kPooled));
    for (auto &function : compiled_.functions) functions_.push_back(bound(function));
  }

  Bound bound(const Function &function) {
    const size_t takes = manifest_.inputs.size() + (function.mask < 0 ? 0 : 2) + function.weights.size();
    const Any arity = member(machine_, "get_function_arity")(Any(function.name.c_str()));
    if (arity.type() != kTVMFFIInt || arity.view().v_int64 != static_cast<int64_t>(takes))
      throw Failure(function.name + " does not take " + std::to_string(takes) + " arrays");
    const std::string name = function.name + ".bound";
    const Any from(function.name.c_str()), to(name.c_str()), keep(true);
    std::vector<Any> weights;
    for (auto &weight : function.weights) weights.push_back(weights_.tensor(weight, compiled_.places.at(weight)));
    std::vector<const Any *> given{&from, &to, &keep};
    for (auto &weight : weights) given.push_back(&weight);
    member(machine_, "save_function").call(given);
    Bound made;
    made.function = member(machine_, name);
    for (auto &spec : manifest_.inputs) {
      std::vector<int64_t> shape;
      for (auto &dim : spec.shape)
        shape.push_back(dim.symbol < 0 ? dim.size : function.sizes[static_cast<size_t>(dim.symbol)]);
      made.inputs.push_back(owned(spec.dtype, shape));
      made.tensors.push_back(tensor(made.inputs.back().bytes.get(), shape, spec.dtype->kind, spec.dtype->bits));
    }
    return made;
  }

  std::vector<Array> from_start(const Call &call, std::vector<Owned> &moved) const {
    std::vector<Array> arrays = call.arrays;
    for (size_t i = 0; i < arrays.size(); ++i) {
      const Input &spec = manifest_.inputs[i];
      if (!spec.indexes || !spec.follows) continue;
      const int64_t size =
          spec.follows->symbol < 0 ? spec.follows->size : call.sizes[static_cast<size_t>(spec.follows->symbol)];
      moved.push_back(from_the_start(arrays[i], size, spec.reach));
      arrays[i] = moved.back().array;
    }
    return arrays;
  }

  Given run_piece(size_t number, const Call &call, const std::vector<Array> &arrays, int64_t start, int64_t rows) {
    const int64_t all = call.sizes[static_cast<size_t>(compiled_.batch)];
    if (rows == all) return run_one(number, arrays);
    std::vector<Array> piece = arrays;
    std::vector<Owned> cut;
    for (size_t i = 0; i < arrays.size(); ++i) {
      std::vector<int64_t> from(arrays[i].shape.size(), 0), shape = arrays[i].shape;
      bool split = false;
      for (size_t axis = 0; axis < shape.size(); ++axis)
        if (manifest_.inputs[i].shape[axis].symbol == compiled_.batch) from[axis] = start, shape[axis] = rows, split = true;
      if (!split) continue;
      cut.push_back(owned(arrays[i].dtype, shape));
      copy_block(cut.back().array, std::vector<int64_t>(shape.size(), 0), arrays[i], from, shape);
      piece[i] = cut.back().array;
    }
    return run_one(number, piece);
  }

  Given run_one(size_t number, const std::vector<Array> &arrays) {
    Bound &one = functions_[number];
    const Function &function = compiled_.functions[number];
    std::vector<const Any *> given;
    for (size_t i = 0; i < arrays.size(); ++i) {
      fill(one.inputs[i].array, manifest_.inputs[i], compiled_, arrays[i]);
      given.push_back(&one.tensors[i]);
    }
    std::vector<Owned> places;
    std::vector<Any> kept;
    if (function.mask >= 0) {
      const auto mask = static_cast<size_t>(function.mask);
      places = real_tokens(manifest_.inputs[mask], arrays[mask], one.inputs[mask].array.shape);
      for (auto &each : places) kept.push_back(tensor(each.bytes.get(), each.array.shape, 0, 32));
      for (auto &each : kept) given.push_back(&each);
    }
    return Given(one.function.call(given));
  }

  // What belongs to the call, of one piece or of several behind one another along the batch.
  void join(Results &made, const std::vector<std::pair<size_t, int64_t>> &plan, const std::vector<int64_t> &sizes) const {
    for (auto &given : made.given)
      if (given.arrays.size() != compiled_.axes.size()) throw Failure(compiled_.module + " gives other outputs than it should");
    for (size_t output = 0; output < compiled_.axes.size(); ++output) {
      const Array &first = made.given.front().arrays[output];
      const std::vector<int> &axes = compiled_.axes[output];
      if (axes.size() != first.shape.size()) throw Failure(compiled_.module + " gives other outputs than it should");
      std::vector<int64_t> shape = first.shape;
      for (size_t axis = 0; axis < axes.size(); ++axis)
        if (axes[axis] >= 0) shape[axis] = sizes[static_cast<size_t>(axes[axis])];
      if (plan.size() == 1 && shape == first.shape) {
        made.arrays.push_back(first);
        continue;
      }
      const auto batch = std::find(axes.begin(), axes.end(), compiled_.batch) - axes.begin();
      if (plan.size() > 1 && batch == static_cast<std::ptrdiff_t>(axes.size()))
        throw Failure("an output has no rows to join a split call by");
      made.copies.push_back(owned(first.dtype, shape));
      const std::vector<int64_t> zeros(shape.size(), 0);
      std::vector<int64_t> place = zeros;
      for (size_t piece = 0; piece < plan.size(); ++piece) {
        const Array &part = made.given[piece].arrays[output];
        std::vector<int64_t> extent = shape;
        if (plan.size() > 1) extent[static_cast<size_t>(batch)] = plan[piece].second;
        for (size_t axis = 0; axis < extent.size(); ++axis)
          if (part.shape.size() != extent.size() || extent[axis] > part.shape[axis])
            throw Failure(compiled_.module + " gives other outputs than it should");
        copy_block(made.copies.back().array, place, part, zeros, extent);
        if (plan.size() > 1) place[static_cast<size_t>(batch)] += plan[piece].second;
      }
      made.arrays.push_back(made.copies.back().array);
    }
  }

  const Manifest &manifest_;
  const Compiled &compiled_;
  Weights weights_;
  Any library_, machine_;
  std::vector<Bound> functions_;
  Worker worker_;
};

}  // namespace

std::unique_ptr<Engine> tvm_engine(const std::string &folder, const Manifest &manifest, int threads) {
  check_processor(manifest.compiled->arch, manifest.compiled->needs);
  return std::make_unique<Machine>(folder, manifest, threads);
}

}  // namespace gw

#else

namespace gw {

std::unique_ptr<Engine> tvm_engine(const std::string &folder, const Manifest &, int) {
  throw Failure(folder + " was compiled by TVM, and this runner was built without its headers: build the runner "
                         "where apache-tvm-ffi is installed");
}

}  // namespace gw

#endif

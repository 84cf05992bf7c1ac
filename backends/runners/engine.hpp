// What runs a bundle's calls.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "call.hpp"
#include "files.hpp"
#include "manifest.hpp"

namespace gw {

// Outputs of a call, in the manifest's order; whatever holds them goes with it.
class Outputs {
 public:
  virtual ~Outputs() = default;
  std::vector<Array> arrays;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::unique_ptr<Outputs> run(const Call &call) = 0;  // from any thread; throws Failure
};

// threads: 0 leaves ONNX Runtime its default. The manifest and the stamps outlive the engine.
std::unique_ptr<Engine> onnxruntime_engine(const std::string &folder, const Manifest &manifest, int threads,
                                           const Stamps &stamps);
std::unique_ptr<Engine> tvm_engine(const std::string &folder, const Manifest &manifest, int threads);

}  // namespace gw

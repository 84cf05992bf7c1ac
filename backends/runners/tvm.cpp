// Functions compiled by TVM.
#include "engine.hpp"
#include "failure.hpp"

namespace gw {

std::unique_ptr<Engine> tvm_engine(const std::string &folder, const Manifest &, int) {
  throw Failure(folder + " was compiled by TVM, and this runner runs ONNX graphs alone");
}

}  // namespace gw

// TVM's runtime through the C API of tvm_ffi; included where its header is installed.
#pragma once

#include <tvm/ffi/c_api.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "library.hpp"

namespace gw {

class Ffi {
 public:
  static Ffi &get() {
    static Ffi ffi;  // for good: what it registers can't be taken back
    return ffi;
  }

  decltype(&TVMFFIFunctionGetGlobal) function_get_global;
  decltype(&TVMFFIFunctionCall) function_call;
  decltype(&TVMFFIErrorMoveFromRaised) error_move_from_raised;
  decltype(&TVMFFIObjectDecRef) object_dec_ref;
  decltype(&TVMFFITensorFromDLPack) tensor_from_dlpack;

  [[noreturn]] void raise() const {
    TVMFFIObjectHandle error = nullptr;
    error_move_from_raised(&error);
    std::string text = "no reason given";
    if (error) {
      auto *cell = reinterpret_cast<TVMFFIErrorCell *>(static_cast<char *>(error) + sizeof(TVMFFIObject));
      text.assign(cell->message.data, cell->message.size);
      object_dec_ref(error);
    }
    throw Failure(text.substr(0, text.find('\n')).substr(0, 300));
  }

 private:
  Ffi()
      : base_(kVariable, "libtvm_ffi.so", kMend, true),
        runtime_(kVariable, "libtvm_runtime.so", kMend, true),
        extra_(kVariable, "libtvm_runtime_extra.so", kMend, true) {  // sorting, which Relax calls
    take(function_get_global, "TVMFFIFunctionGetGlobal");
    take(function_call, "TVMFFIFunctionCall");
    take(error_move_from_raised, "TVMFFIErrorMoveFromRaised");
    take(object_dec_ref, "TVMFFIObjectDecRef");
    take(tensor_from_dlpack, "TVMFFITensorFromDLPack");
    decltype(&TVMFFIGetVersion) get_version;
    take(get_version, "TVMFFIGetVersion");
    TVMFFIVersion found{};
    get_version(&found);
    if (found.major != TVM_FFI_VERSION_MAJOR || found.minor != TVM_FFI_VERSION_MINOR ||
        found.patch != TVM_FFI_VERSION_PATCH)
      throw Failure("libtvm_ffi.so is of another version than this runner: build the runner with it");
  }

  template <typename F>
  void take(F &function, const char *name) {
    function = reinterpret_cast<F>(base_.symbol(name));
  }

  static constexpr const char *kVariable = "GRAPHWRIGHT_TVM";
  static constexpr const char *kMend = "name the directory of TVM's libraries in GRAPHWRIGHT_TVM";
  Library base_, runtime_, extra_;
};

// A value of TVM's, released at the end where it is an object.
class Any {
 public:
  Any() = default;
  explicit Any(TVMFFIObjectHandle object, int32_t type) {
    value_.type_index = type;
    value_.v_obj = static_cast<TVMFFIObject *>(object);
  }
  Any(int64_t number) {
    value_.type_index = kTVMFFIInt;
    value_.v_int64 = number;
  }
  Any(int number) : Any(static_cast<int64_t>(number)) {}
  Any(bool truth) {
    value_.type_index = kTVMFFIBool;
    value_.v_int64 = truth;
  }
  Any(const char *text) {  // which lives as long
    value_.type_index = kTVMFFIRawStr;
    value_.v_c_str = text;
  }
  Any(Any &&other) noexcept : value_(std::exchange(other.value_, TVMFFIAny{})) {}
  Any &operator=(Any &&other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Any() {
    if (value_.type_index >= kTVMFFIStaticObjectBegin) Ffi::get().object_dec_ref(value_.v_obj);
  }

  const TVMFFIAny &view() const { return value_; }
  TVMFFIAny *out() { return &value_; }
  int32_t type() const { return value_.type_index; }

  // What stands behind the header of an object.
  template <typename Cell>
  static const Cell *cell(const TVMFFIAny &value) {
    return reinterpret_cast<const Cell *>(reinterpret_cast<const char *>(value.v_obj) + sizeof(TVMFFIObject));
  }

  Any call(const std::vector<const Any *> &given) const {
    if (value_.type_index != kTVMFFIFunction) throw Failure("TVM has no such function");
    std::vector<TVMFFIAny> views;
    for (auto *each : given) views.push_back(each->view());
    Any found;
    if (Ffi::get().function_call(value_.v_obj, views.data(), static_cast<int32_t>(views.size()), found.out()))
      Ffi::get().raise();
    return found;
  }

  template <typename... Given>
  Any operator()(const Given &...given) const {
    return call({&given...});
  }

 private:
  TVMFFIAny value_{};
};

inline Any global(const std::string &name) {
  const TVMFFIByteArray text{name.data(), name.size()};
  TVMFFIObjectHandle found = nullptr;
  if (Ffi::get().function_get_global(&text, &found)) Ffi::get().raise();
  if (!found) throw Failure("TVM's runtime has no " + name);
  return Any(found, kTVMFFIFunction);
}

inline Any member(const Any &module, const std::string &name) {
  Any found = global("ffi.ModuleGetFunction")(module, Any(name.c_str()), Any(false));
  if (found.type() != kTVMFFIFunction) throw Failure("the module has no function " + name);
  return found;
}

// A tensor over bytes that live longer.
inline Any tensor(void *data, const std::vector<int64_t> &shape, int kind, int bits) {
  struct Held {
    DLManagedTensor managed;
    std::vector<int64_t> shape;
  };
  auto *held = new Held{{}, shape};
  held->managed.dl_tensor.data = data;
  held->managed.dl_tensor.device = {kDLCPU, 0};
  held->managed.dl_tensor.ndim = static_cast<int32_t>(shape.size());
  held->managed.dl_tensor.dtype = {static_cast<uint8_t>(kind), static_cast<uint8_t>(bits), 1};
  held->managed.dl_tensor.shape = held->shape.data();
  held->managed.manager_ctx = held;
  held->managed.deleter = [](DLManagedTensor *self) { delete static_cast<Held *>(self->manager_ctx); };
  TVMFFIObjectHandle found = nullptr;
  if (Ffi::get().tensor_from_dlpack(&held->managed, 0, 0, &found)) {
    delete held;
    Ffi::get().raise();
  }
  return Any(found, kTVMFFITensor);
}

}  // namespace gw

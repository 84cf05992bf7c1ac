// What compiled functions give; included where TVM's header is installed.
#pragma once

#include <utility>
#include <vector>

#include "engine.hpp"
#include "fitting.hpp"
#include "tvm_api.hpp"

namespace gw {

// One function's results: arrays over what TVM allocated.
struct Given {
  Any held;
  std::vector<Array> arrays;

  explicit Given(Any found) : held(std::move(found)) {
    if (held.type() == kTVMFFITensor) {
      arrays.push_back(described(held.view()));
      return;
    }
    if (held.type() != kTVMFFIArray) throw Failure("it gave no arrays");
    auto *cell = Any::cell<TVMFFISeqCell>(held.view());
    for (int64_t i = 0; i < cell->size; ++i) arrays.push_back(described(static_cast<TVMFFIAny *>(cell->data)[i]));
  }

 private:
  static Array described(const TVMFFIAny &value) {
    if (value.type_index != kTVMFFITensor) throw Failure("it gave what is no array");
    auto *found = Any::cell<DLTensor>(value);
    Array array;
    for (auto *name : {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
                       "float32", "float64", "bfloat16"})
      if (auto *dtype = dtype_named(name); dtype->kind == found->dtype.code && dtype->bits == found->dtype.bits)
        array.dtype = dtype;
    if (!array.dtype || found->dtype.lanes != 1) throw Failure("arrays in C can't hold the elements of its outputs");
    array.shape.assign(found->shape, found->shape + found->ndim);
    array.data = static_cast<const char *>(found->data) + found->byte_offset;
    return array;
  }
};

class Results : public Outputs {
 public:
  std::vector<Given> given;
  std::vector<Owned> copies;
};

}  // namespace gw

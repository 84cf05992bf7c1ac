// Calls a function of a TVM library without Python: run LIBRARY FUNCTION IN OUT.
// IN: tensors, each int32 {code, bits, ndim}, int64 shape[ndim], bytes. OUT: after the call, the same of what a
// virtual machine's function returned, or of every argument of a plain function.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

static void die(const char* what) {
  fprintf(stderr, "run: %s\n", what);
  exit(1);
}

static void check(int code) {
  if (!code) return;
  TVMFFIObjectHandle raised = NULL;
  TVMFFIErrorMoveFromRaised(&raised);
  TVMFFIErrorCell* cell = (TVMFFIErrorCell*)((char*)raised + sizeof(TVMFFIObject));
  fprintf(stderr, "run: %.*s: %.*s\n", (int)cell->kind.size, cell->kind.data, (int)cell->message.size,
          cell->message.data);
  exit(1);
}

static TVMFFIAny any(int32_t type, int64_t value) {
  TVMFFIAny made;
  memset(&made, 0, sizeof made);
  made.type_index = type;
  made.v_int64 = value;
  return made;
}

static TVMFFIAny call(TVMFFIObjectHandle function, TVMFFIAny* arguments, int count) {
  TVMFFIAny result = any(kTVMFFINone, 0);
  check(TVMFFIFunctionCall(function, arguments, count, &result));
  return result;
}

static TVMFFIObjectHandle global(const char* name) {
  TVMFFIByteArray text = {name, strlen(name)};
  TVMFFIObjectHandle found = NULL;
  check(TVMFFIFunctionGetGlobal(&text, &found));
  if (!found) die(name);
  return found;
}

// NULL where the module has no such function.
static TVMFFIObjectHandle function_of(TVMFFIAny module, const char* name) {
  TVMFFIAny arguments[] = {module, any(kTVMFFIRawStr, (int64_t)name), any(kTVMFFIBool, 1)};
  TVMFFIAny found = call(global("ffi.ModuleGetFunction"), arguments, 3);
  return found.type_index == kTVMFFIFunction ? found.v_obj : NULL;
}

static int64_t bytes_of(const DLTensor* tensor) {
  int64_t bytes = (tensor->dtype.bits + 7) / 8;
  for (int i = 0; i < tensor->ndim; ++i) bytes *= tensor->shape[i];
  return bytes;
}

static int read_tensor(FILE* file, TVMFFIAny* out) {
  int32_t head[3];
  if (fread(head, sizeof head, 1, file) != 1) return 0;
  DLManagedTensor* made = calloc(1, sizeof *made);
  DLTensor* tensor = &made->dl_tensor;
  tensor->device.device_type = kDLCPU;
  tensor->dtype.code = head[0], tensor->dtype.bits = head[1], tensor->dtype.lanes = 1;
  tensor->ndim = head[2];
  tensor->shape = calloc(head[2] + 1, sizeof(int64_t));
  tensor->strides = calloc(head[2] + 1, sizeof(int64_t));
  if (head[2] && fread(tensor->shape, sizeof(int64_t) * head[2], 1, file) != 1) die("the input ends early");
  for (int64_t i = head[2] - 1, step = 1; i >= 0; step *= tensor->shape[i--]) tensor->strides[i] = step;
  int64_t bytes = bytes_of(tensor);
  tensor->data = aligned_alloc(64, (bytes + 127) / 64 * 64);
  if (bytes && fread(tensor->data, bytes, 1, file) != 1) die("the input ends early");
  TVMFFIObjectHandle object;
  check(TVMFFITensorFromDLPack(made, 0, 0, &object));
  *out = any(kTVMFFITensor, (int64_t)object);
  return 1;
}

static void write_tensor(FILE* file, TVMFFIAny value) {
  const DLTensor* tensor = (const DLTensor*)((char*)value.v_obj + sizeof(TVMFFIObject));
  int32_t head[3] = {tensor->dtype.code, tensor->dtype.bits, tensor->ndim};
  fwrite(head, sizeof head, 1, file);
  fwrite(tensor->shape, sizeof(int64_t), tensor->ndim, file);
  fwrite((char*)tensor->data + tensor->byte_offset, 1, bytes_of(tensor), file);
}

int main(int argc, char** argv) {
  if (argc != 5) die("run LIBRARY FUNCTION IN OUT");
  if (!dlopen("libtvm_runtime.so", RTLD_NOW | RTLD_GLOBAL)) die(dlerror());
  if (!dlopen("libtvm_runtime_extra.so", RTLD_NOW | RTLD_GLOBAL)) die(dlerror());
  TVMFFIAny path = any(kTVMFFIRawStr, (int64_t)argv[1]);
  TVMFFIAny module = call(global("ffi.ModuleLoadFromFile"), &path, 1);
  TVMFFIObjectHandle load = function_of(module, "vm_load_executable");
  if (load) {
    module = call(load, NULL, 0);
    TVMFFIAny cpu[] = {any(kTVMFFIInt, kDLCPU), any(kTVMFFIInt, 0), any(kTVMFFIInt, 2)};  // 2: pooled memory
    call(function_of(module, "vm_initialization"), cpu, 3);
  }
  TVMFFIObjectHandle function = function_of(module, argv[2]);
  if (!function) die("no such function");
  TVMFFIAny arguments[512];
  int count = 0;
  FILE* file = fopen(argv[3], "rb");
  while (count < 512 && read_tensor(file, &arguments[count])) ++count;
  fclose(file);
  TVMFFIAny result = call(function, arguments, count);
  file = fopen(argv[4], "wb");
  if (result.type_index == kTVMFFITensor) {
    write_tensor(file, result);
  } else if (result.type_index == kTVMFFIArray) {
    TVMFFISeqCell* items = (TVMFFISeqCell*)((char*)result.v_obj + sizeof(TVMFFIObject));
    for (int64_t i = 0; i < items->size; ++i) write_tensor(file, ((TVMFFIAny*)items->data)[i]);
  } else {
    for (int i = 0; i < count; ++i) write_tensor(file, arguments[i]);
  }
  return fclose(file);
}

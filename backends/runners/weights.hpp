// model.weights, as backends/tvm/run/weights_file.py reads it; included where TVM's header is installed.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "manifest.hpp"
#include "tvm_api.hpp"

namespace gw {

constexpr size_t kLargePage = size_t(1) << 21, kWeightAlign = 64;  // bytes

// The tensors of model.weights that some functions take, at the distances that they have there, in memory that is
// asked for in large pages.
class Weights {
 public:
  Weights(const std::string &path, const Compiled &compiled) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const off_t end = file < 0 ? -1 : lseek(file, 0, SEEK_END);
    size = end < 0 ? 0 : static_cast<size_t>(end);
    room_ = mmap(nullptr, size + kLargePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool whole = size > 0;
    if (file >= 0 && room_ != MAP_FAILED) {
      madvise(room_, size + kLargePage, MADV_HUGEPAGE);
      data = static_cast<char *>(room_) + (kLargePage - reinterpret_cast<uintptr_t>(room_) % kLargePage) % kLargePage;
      for (auto &[name, place] : compiled.places) whole = whole && filled(file, place);
    }
    if (file >= 0) close(file);
    if (!data || !whole) throw Failure(path + " can't be read: copy or build the bundle again");
  }
  Weights(const Weights &) = delete;
  ~Weights() {
    if (room_ != MAP_FAILED) munmap(room_, size + kLargePage);
  }

  Any tensor(const std::string &name, const Place &place) const {
    const size_t offset = static_cast<size_t>(place.offset), bytes = bytes_of(place);
    if (offset % kWeightAlign || offset > size || bytes > size - offset)
      throw Failure("model.weights does not hold " + name);
    return gw::tensor(data + offset, place.shape, place.dtype->kind, place.dtype->bits);
  }

  char *data = nullptr;
  size_t size = 0;

 private:
  // More than there are where it would be more than any number can say.
  size_t bytes_of(const Place &place) const {
    size_t bytes = place.dtype->bytes;
    for (int64_t side : place.shape) {
      if (side && bytes > size / static_cast<size_t>(side)) return size + 1;
      bytes *= static_cast<size_t>(side);
    }
    return bytes;
  }

  // Reads what of a tensor lies in the file; `tensor` refuses one that does not.
  bool filled(int file, const Place &place) {
    const size_t start = std::min(static_cast<size_t>(place.offset), size);
    const size_t end = start + std::min(bytes_of(place), size - start);
    size_t at = start;
    for (ssize_t more = 1; at < end && more > 0; at += static_cast<size_t>(std::max<ssize_t>(more, 0)))
      more = pread(file, data + at, end - at, static_cast<off_t>(at));
    return at == end;
  }

  void *room_ = MAP_FAILED;
};

}  // namespace gw

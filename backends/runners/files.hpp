// Files that somebody else wrote: read only where they are files, and only so much of them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "manifest.hpp"

namespace gw {

// Throws Failure for what can't be read, is no regular file, or is larger than `most` bytes.
std::string read_whole(const std::string &path, size_t most);

// What a file is recognised by later: device, inode, size, time of its last change. Zeros where there is none.
using Stamp = std::tuple<uint64_t, uint64_t, int64_t, int64_t>;
Stamp stamp(const std::string &path);

// The files of a bundle as they were when they were verified.
class Stamps {
 public:
  Stamps(const std::string &folder, const Manifest &manifest);
  void check() const;  // throws Failure where one has changed

 private:
  std::map<std::string, Stamp> stamps_;
};

}  // namespace gw

// Shared libraries of others, opened when first needed and then kept.
#pragma once

#include <string>

namespace gw {

class Library {
 public:
  // The file that the environment variable names, else one of that name beside this library, else where the
  // system looks. `everywhere`: its symbols serve libraries opened later. Throws Failure.
  Library(const char *variable, const std::string &name, const std::string &mend, bool everywhere = false);

  void *symbol(const char *name) const;  // throws Failure

 private:
  void *handle_;
  std::string name_;
};

}  // namespace gw

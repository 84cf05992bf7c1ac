#include "library.hpp"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "failure.hpp"
#include "graphwright.h"

namespace gw {
namespace {

std::string beside(const std::string &name) {
  Dl_info here;
  if (!dladdr(reinterpret_cast<void *>(&gw_error), &here) || !here.dli_fname) return name;
  const std::string path = here.dli_fname;
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return name;
  const std::string there = path.substr(0, slash + 1) + name;
  return access(there.c_str(), R_OK) == 0 ? there : name;
}

std::string place(const char *variable, const std::string &name) {
  const char *given = std::getenv(variable);
  if (!given || !*given) return beside(name);
  struct stat found {};
  const bool folder = stat(given, &found) == 0 && S_ISDIR(found.st_mode);
  return folder ? std::string(given) + "/" + name : std::string(given);
}

}  // namespace

Library::Library(const char *variable, const std::string &name, const std::string &mend, bool everywhere)
    : handle_(nullptr), name_(place(variable, name)) {
  handle_ = dlopen(name_.c_str(), RTLD_NOW | (everywhere ? RTLD_GLOBAL : RTLD_LOCAL));
  if (!handle_) {
    const char *why = dlerror();
    throw Failure(name + " can't be loaded (" + (why ? why : "no reason given") + "): " + mend);
  }
}

void *Library::symbol(const char *name) const {
  void *found = dlsym(handle_, name);
  if (!found) throw Failure(name_ + " has no " + name + ": it is another library, or of another version");
  return found;
}

}  // namespace gw

#include "files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "failure.hpp"
#include "sha256.hpp"

namespace gw {
namespace {

const std::string kAgain = ": copy or build the bundle again";

// A regular file, open for reading: a pipe, a device or a socket might never end, or never begin.
class Open {
 public:
  explicit Open(const std::string &path) : descriptor(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
    if (descriptor < 0 || fstat(descriptor, &found)) fail(path, errno);
    if (S_ISDIR(found.st_mode)) fail(path, EISDIR);
    if (!S_ISREG(found.st_mode)) {
      close(descriptor);
      throw Failure(path + " can't be read: not a regular file");
    }
  }
  Open(const Open &) = delete;
  ~Open() { close(descriptor); }

  int descriptor;
  struct stat found {};

 private:
  [[noreturn]] void fail(const std::string &path, int error) const {
    if (descriptor >= 0) close(descriptor);
    if (error == ENOENT) throw Failure(path + " is missing" + kAgain);
    throw Failure(path + " can't be read: " + std::strerror(error));
  }
};

void verify(const std::string &path, const File &entry) {
  Open file(path);
  if (file.found.st_size != entry.bytes)
    throw Failure(path + " has " + std::to_string(file.found.st_size) + " bytes and the manifest says " +
                  std::to_string(entry.bytes) + kAgain);
  if (sha256_of_file(file.descriptor) != entry.sha256)
    throw Failure(path + " is not the file that the manifest was made for" + kAgain);
}

}  // namespace

std::string read_whole(const std::string &path, size_t most) {
  Open file(path);
  std::string data(std::min(most + 1, static_cast<size_t>(file.found.st_size) + 1), '\0');
  size_t filled = 0;
  while (filled < data.size()) {
    ssize_t found = read(file.descriptor, &data[filled], data.size() - filled);
    if (found < 0 && errno == EINTR) continue;
    if (found < 0) throw Failure(path + " can't be read: " + std::strerror(errno));
    if (found == 0) break;
    filled += static_cast<size_t>(found);
  }
  if (filled > most) throw Failure(path + " is larger than " + std::to_string(most >> 20) + " MB");
  data.resize(filled);
  return data;
}

Stamp stamp(const std::string &path) {
  struct stat found {};
  if (stat(path.c_str(), &found)) return {};
  return {found.st_dev, found.st_ino, found.st_size, found.st_mtim.tv_sec * 1000000000 + found.st_mtim.tv_nsec};
}

Stamps::Stamps(const std::string &folder, const Manifest &manifest) {
  for (auto &[name, entry] : manifest.files) stamps_[folder + "/" + name] = stamp(folder + "/" + name);
}

void Stamps::check() const {
  for (auto &[path, was] : stamps_)
    if (stamp(path) != was) throw Failure(path + " has changed since the bundle was loaded: load it again");
}

void verify_files(const std::string &folder, const Manifest &manifest) {
  namespace fs = std::filesystem;
  for (auto &[name, entry] : manifest.files) verify(folder + "/" + name, entry);
  std::error_code error;
  for (fs::recursive_directory_iterator each(folder, error), end; !error && each != end; each.increment(error)) {
    const std::string name = each->path().lexically_relative(folder).generic_string();
    const std::string suffix = each->path().extension().string();
    const bool model = suffix == ".onnx" || suffix == ".data" || suffix == ".ort" || suffix == ".so" ||
                       suffix == ".weights";
    if (model && !manifest.files.count(name))
      throw Failure(each->path().string() + " is not in the manifest: remove it, or build the bundle again");
  }
  if (error) throw Failure(folder + " can't be read: " + error.message());
}

}  // namespace gw

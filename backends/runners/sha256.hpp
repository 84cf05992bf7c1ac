// SHA-256, as FIPS 180-4 describes it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace gw {

class Sha256 {
 public:
  void update(const void *data, size_t size);
  std::string hex();  // of everything; the end of it

 private:
  void block(const unsigned char *data);

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> rest_{};
  size_t filled_ = 0;
  uint64_t total_ = 0;
};

std::string sha256_of(const std::string &data);
std::string sha256_of_file(int descriptor);  // throws Failure where it can't be read

}  // namespace gw

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PERIPH_DISK_IMAGE_H_
#define TRIPWIRE_TESTS_UNIT_PERIPH_DISK_IMAGE_H_

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "nic/base/fd.h"

namespace tripwire::periph {

// A sparse file that is gone at the end.
class Image {
 public:
  explicit Image(uint64_t bytes) {
    const char* directory = std::getenv("TMPDIR");
    path_ = std::string(directory != nullptr ? directory : "/tmp") + "/tw-image-XXXXXX";
    const UniqueFd fd(mkstemp(path_.data()));
    if (!fd || ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
      throw std::runtime_error("no image can be made at " + path_);
    }
  }
  Image(const Image&) = delete;
  ~Image() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }
  uint64_t AllocatedBytes() const {
    struct stat st = {};
    stat(path_.c_str(), &st);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  }

 private:
  std::string path_;
};

inline std::vector<uint8_t> RandomData(uint64_t seed, size_t bytes) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> data(bytes);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  return data;
}

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_UNIT_PERIPH_DISK_IMAGE_H_

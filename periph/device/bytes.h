// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_BYTES_H_
#define TRIPWIRE_PERIPH_DEVICE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/fd.h"

// What the kinds of devices that carry plain bytes have in common.
namespace tripwire::periph {

// Frames of byte streams are this long at most, unless the device's SPEC says
// less or more.
inline constexpr uint64_t kByteFrameBytes = 65536;
inline constexpr uint64_t kMaxByteFrameBytes = uint64_t{16} << 20;

// OK if a byte stream is what `format` admits; else as Device::StartSource
// says.
absl::Status CheckByteFormat(const std::string& format);

// An errno of open, read or write as a status: UNAVAILABLE for a device that is
// not there or fails, PERMISSION_DENIED, FAILED_PRECONDITION for one that is
// busy, UNIMPLEMENTED for a direction it does not have. The message is "WHAT:
// reason".
absl::Status DeviceError(int error, const std::string& what);

// "PATH[,NAME[=VALUE]]...", as the argument of a SPEC.
struct PathSpec {
  std::string path;
  std::vector<std::pair<std::string, std::string>> options;  // in their order
};
absl::StatusOr<PathSpec> ParsePathSpec(const std::string& kind,
                                       const std::string& argument);
// The value of an option frame=BYTES.
absl::StatusOr<uint64_t> ParseFrameBytes(const std::string& value);

// Wakes a thread that polls. Thread-safe.
class WakeFd {
 public:
  WakeFd();
  int get() const { return fd_.get(); }
  void Signal() const;
  // Takes back what was signalled; false if nothing was.
  bool Clear() const;
  // Waits for a signal, at most so long; true if there was one. Does not clear
  // it.
  bool WaitMs(int timeout_ms) const;

 private:
  UniqueFd fd_;
};

// Notices that a file which is open is no longer what its name means: it was
// removed, or another put in its place.
class PathWatch {
 public:
  PathWatch(std::string path, int fd);
  // To poll for reading; -1 if the system has no more watches to give.
  int fd() const { return watch_.get(); }
  // After news on the descriptor: false if it is gone.
  bool StillThere() const;

 private:
  const std::string path_;
  const int file_;
  UniqueFd watch_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_BYTES_H_

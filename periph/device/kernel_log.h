// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_KERNEL_LOG_H_
#define TRIPWIRE_PERIPH_DEVICE_KERNEL_LOG_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "periph/device/byte_source.h"

namespace tripwire::periph {

// The longest record that /dev/kmsg gives (the kernel's PRINTK_MESSAGE_MAX is
// 2048, its text may be escaped to four times that), and a reader's room must
// hold it whole.
inline constexpr uint64_t kKernelRecordBytes = 16384;

// The sequence number of a record "PRIORITY,SEQUENCE,TIME,FLAGS[,...];TEXT",
// see the kernel's Documentation/ABI/testing/dev-kmsg. Nothing if it is not
// one.
std::optional<uint64_t> KernelRecordSequence(std::string_view record);

// The kernel's log: each read is a record. Records that were overwritten before
// they were read are missing in the sequence, and so counted; the EPIPE with
// which the kernel says so is no error.
class KernelLogInput final : public ByteInput {
 public:
  // As read(2), of `fd`.
  using Reader = std::function<ssize_t(std::span<uint8_t>)>;
  KernelLogInput(int fd, Reader read, std::string name)
      : fd_(fd), read_(std::move(read)), name_(std::move(name)) {}

  int fd() const override { return fd_; }
  Piece Read(std::span<uint8_t> into) override;
  uint64_t overrun() override { return lost_; }

 private:
  const int fd_;
  const Reader read_;
  const std::string name_;
  std::optional<uint64_t> last_;
  uint64_t lost_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_KERNEL_LOG_H_

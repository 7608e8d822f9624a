// SPDX-License-Identifier: BSD-3-Clause
#include "periph/device/kernel_log.h"

#include <cerrno>

#include "absl/strings/numbers.h"

namespace tripwire::periph {

std::optional<uint64_t> KernelRecordSequence(std::string_view record) {
  const std::string_view head = record.substr(0, record.find(';'));
  if (head.size() == record.size()) return std::nullopt;  // no text
  const size_t begin = head.find(',');
  if (begin == std::string_view::npos) return std::nullopt;
  const size_t end = head.find(',', begin + 1);
  if (end == std::string_view::npos) return std::nullopt;
  uint64_t sequence = 0;
  if (!absl::SimpleAtoi(std::string(head.substr(begin + 1, end - begin - 1)),
                        &sequence))
    return std::nullopt;
  return sequence;
}

ByteInput::Piece KernelLogInput::Read(std::span<uint8_t> into) {
  const ssize_t size = read_(into);
  if (size < 0) {
    // EPIPE: the next record was overwritten; reading goes on with the oldest
    // there is.
    if (errno == EAGAIN || errno == EINTR || errno == EPIPE) return {};
    return {What::kEnd, 0, DeviceError(errno, name_)};
  }
  if (size == 0) return {What::kEnd, 0, absl::OkStatus()};
  const auto length = static_cast<size_t>(size);
  const auto sequence = KernelRecordSequence(
      {reinterpret_cast<const char*>(into.data()), length});
  if (sequence) {
    // Where we begin nothing is missing; a number that goes back is a log begun
    // anew.
    if (last_ && *sequence > *last_) lost_ += *sequence - *last_ - 1;
    last_ = sequence;
  }
  return {What::kBytes, length, {}};
}

}  // namespace tripwire::periph

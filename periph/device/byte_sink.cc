// SPDX-License-Identifier: BSD-3-Clause
#include "periph/device/byte_sink.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace tripwire::periph {
namespace {

constexpr int kLongestPauseMs = 32;

}  // namespace

absl::Status ByteSink::AwaitRoom() {
  pollfd waits[] = {{cancel_.get(), POLLIN, 0}, {output_->fd(), POLLOUT, 0}};
  if (::poll(waits, 2, -1) < 0)
    return absl::OkStatus();  // interrupted: the caller tries
  if (waits[0].revents != 0 && cancel_.Clear())
    return absl::CancelledError("cancelled");
  return absl::OkStatus();
}

absl::Status ByteSink::Put(const Frame& frame) {
  if (cancel_.Clear()) return absl::CancelledError("cancelled");
  std::span<const uint8_t> left = frame.data;
  int pause_ms = 0;
  while (!left.empty()) {
    const ssize_t size = ::write(output_->fd(), left.data(), left.size());
    if (size > 0) {
      left = left.subspan(static_cast<size_t>(size));
      pause_ms = 0;
      continue;
    }
    if (size < 0 && errno != EAGAIN && errno != EINTR)
      return output_->Failed(errno);
    if (auto status = AwaitRoom(); !status.ok()) return status;
    // Some devices say that they have room and then have none.
    if (cancel_.WaitMs(pause_ms)) continue;
    pause_ms = std::min(pause_ms + 1, kLongestPauseMs);
  }
  return absl::OkStatus();
}

absl::Status ByteSink::Drain() {
  for (int pause_ms = 1;; pause_ms = std::min(pause_ms * 2, kLongestPauseMs)) {
    if (cancel_.Clear()) return absl::CancelledError("cancelled");
    const absl::StatusOr<bool> done = output_->Done();
    if (!done.ok()) return done.status();
    if (*done) return absl::OkStatus();
    cancel_.WaitMs(pause_ms);
  }
}

}  // namespace tripwire::periph

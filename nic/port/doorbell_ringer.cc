// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/doorbell_ringer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>

namespace tripwire {
namespace {

constexpr unsigned kMaxUnreaped = 32;

bool Write(int event_fd) {
  const uint64_t one = 1;
  const ssize_t written = write(event_fd, &one, sizeof one);
  // One that is full was rung, and often.
  return written == sizeof one || (written < 0 && errno == EAGAIN);
}

}  // namespace

DoorbellRinger::DoorbellRinger()
    : ready_(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!ready_ || syscall(SYS_io_setup, kMaxUnreaped, &context_) != 0) {
    context_ = 0;
  }
}

DoorbellRinger::~DoorbellRinger() {
  if (context_ != 0) syscall(SYS_io_destroy, context_);
}

bool DoorbellRinger::RingBell(int event_fd, bool trusts_owner) {
  if (trusts_owner) return Write(event_fd);
  if (context_ == 0) return RingByWriting(event_fd);
  if (unreaped_ == kMaxUnreaped) {
    std::array<io_event, kMaxUnreaped> events;
    timespec at_once{};
    const long reaped = syscall(SYS_io_getevents, context_, 0L,
                                static_cast<long>(events.size()),
                                events.data(), &at_once);
    if (reaped <= 0) return RingByWriting(event_fd);
    unreaped_ -= static_cast<unsigned>(reaped);
  }
  iocb operation{};
  operation.aio_lio_opcode = IOCB_CMD_POLL;
  operation.aio_fildes = static_cast<uint32_t>(ready_.get());
  operation.aio_buf = POLLIN;
  operation.aio_flags = IOCB_FLAG_RESFD;
  operation.aio_resfd = static_cast<uint32_t>(event_fd);
  iocb* operations[] = {&operation};
  if (syscall(SYS_io_submit, context_, 1L, operations) != 1) {
    return RingByWriting(event_fd);
  }
  ++unreaped_;
  return true;
}

// As good as can be without: between looking and writing, a hostile owner may
// still change what was seen.
bool DoorbellRinger::RingByWriting(int event_fd) {
  const int flags = fcntl(event_fd, F_GETFL);
  if (flags < 0 || (flags & O_NONBLOCK) == 0) return false;
  pollfd room{event_fd, POLLOUT, 0};
  if (poll(&room, 1, 0) != 1 || (room.revents & POLLOUT) == 0) {
    return true;  // full: it was rung, and often
  }
  return Write(event_fd);
}

}  // namespace tripwire

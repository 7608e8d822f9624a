// SPDX-License-Identifier: BSD-3-Clause
#include "periph/device/byte_source.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace tripwire::periph {
namespace {

constexpr size_t kSlabBytes = 256 * 1024;
constexpr size_t kFrameAlignment = 64;
constexpr int kLongestPauseMs = 64;

}  // namespace

ByteInput::Piece ReadPiece(int fd, std::span<uint8_t> into,
                           const std::string& name) {
  const ssize_t size = ::read(fd, into.data(), into.size());
  if (size > 0) return {ByteInput::What::kBytes, static_cast<size_t>(size), {}};
  if (size == 0) return {ByteInput::What::kEnd, 0, absl::OkStatus()};
  if (errno == EAGAIN || errno == EINTR) return {};
  return {ByteInput::What::kEnd, 0, DeviceError(errno, name)};
}

ByteSource::ByteSource(std::unique_ptr<ByteInput> input, FrameTaker& taker,
                       Clock& clock, Options options)
    : options_(std::move(options)),
      input_(std::move(input)),
      taker_(taker),
      clock_(clock),
      thread_([this] { Run(); }) {}

ByteSource::~ByteSource() {
  stopping_.store(true, std::memory_order_relaxed);
  stop_.Signal();
  thread_.join();
}

std::span<uint8_t> ByteSource::Room() {
  if (slab_ == nullptr || slab_bytes_ - slab_used_ < options_.frame_bytes) {
    slab_bytes_ = std::max<size_t>(kSlabBytes, options_.frame_bytes);
    slab_ = std::shared_ptr<uint8_t[]>(new uint8_t[slab_bytes_]);
    slab_used_ = 0;
  }
  return {slab_.get() + slab_used_, options_.frame_bytes};
}

void ByteSource::Run() {
  absl::Status why;
  while (!stopping_.load(std::memory_order_relaxed)) {
    if (Await(why) && TakeOne(why)) continue;
    if (!stopping_.load(std::memory_order_relaxed)) taker_.End(why);
    return;
  }
}

bool ByteSource::Await(absl::Status& why) {
  if (pause_ms_ > 0 && stop_.WaitMs(pause_ms_)) return false;
  pollfd waits[] = {{stop_.get(), POLLIN, 0},
                    {input_->fd(), POLLIN, 0},
                    {input_->news_fd(), POLLIN, 0}};
  if (::poll(waits, 3, -1) < 0)
    return true;  // interrupted: reading does no harm
  if (waits[0].revents != 0) return false;
  if (waits[2].revents != 0) {
    why = input_->Check();
    return why.ok();
  }
  return true;
}

bool ByteSource::TakeOne(absl::Status& why) {
  const std::span<uint8_t> room = Room();
  const ByteInput::Piece piece = input_->Read(room);
  if (piece.what == ByteInput::What::kEnd) {
    why = piece.why;
    return false;
  }
  if (piece.what == ByteInput::What::kNothing) {
    pause_ms_ = std::min(std::max(1, pause_ms_ * 2), kLongestPauseMs);
    return true;
  }
  pause_ms_ = 0;
  Frame frame;
  frame.capture_ns = clock_.NowNs();
  frame.data = room.first(piece.length);
  frame.owner = slab_;
  frame.overrun = input_->overrun();
  slab_used_ +=
      (piece.length + kFrameAlignment - 1) / kFrameAlignment * kFrameAlignment;
  slab_used_ = std::min(slab_used_, slab_bytes_);
  taker_.Take(std::move(frame));
  return true;
}

}  // namespace tripwire::periph

// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/capture_port.h"

#include <time.h>

#include <algorithm>
#include <utility>

namespace tripwire {

uint64_t SystemClockEpochNs() {
  timespec wall{};
  clock_gettime(CLOCK_REALTIME, &wall);
  SystemClock clock;
  return static_cast<uint64_t>(wall.tv_sec) * kSecond +
         static_cast<uint64_t>(wall.tv_nsec) - clock.NowNs();
}

CapturePort::CapturePort(std::unique_ptr<Port> inner,
                         std::unique_ptr<CaptureFile> file, Clock& clock,
                         uint64_t epoch_ns)
    : ForwardingPort(std::move(inner)),
      file_(std::move(file)),
      clock_(clock),
      epoch_ns_(epoch_ns) {}

void CapturePort::Record(std::span<const Frame> frames,
                         CaptureDirection direction) {
  blocks_.clear();
  const bool is_recording = !file_->has_failed();
  const uint64_t time_ns = is_recording ? clock_.NowNs() + epoch_ns_ : 0;
  for (size_t i = 0; i < frames.size(); ++i) {
    if (is_recording) AppendPacketBlock(frames[i], direction, time_ns, blocks_);
    ends_[i] = blocks_.size();
  }
}

void CapturePort::Commit(size_t frames) {
  if (frames == 0) return;
  file_->Append(std::span(blocks_).first(ends_[frames - 1]), frames);
}

size_t CapturePort::Receive(std::span<Frame> frames) {
  const size_t count =
      inner_->Receive(frames.first(std::min(frames.size(), kBurst)));
  if (count == 0) return 0;
  Record(frames.first(count), CaptureDirection::kInbound);
  Commit(count);
  return count;
}

// Frames are the inner port's once it has taken them, and their answers may
// come at once; so they are copied, and timed, before. Only the ones it takes
// count.
size_t CapturePort::Transmit(PathId path, std::span<const Frame> frames,
                             Ring ring) {
  size_t sent = 0;
  while (sent < frames.size()) {
    const auto burst =
        frames.subspan(sent, std::min(frames.size() - sent, kBurst));
    Record(burst, CaptureDirection::kOutbound);
    const size_t taken = inner_->Transmit(path, burst, ring);
    Commit(taken);
    sent += taken;
    if (taken < burst.size()) break;
  }
  return sent;
}

PortCounters CapturePort::counters() const {
  PortCounters counters = inner_->counters();
  counters.captured = file_->written_frames();
  counters.capture_dropped = file_->dropped_frames();
  return counters;
}

}  // namespace tripwire

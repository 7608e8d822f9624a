// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/faulty_port.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace tripwire {
namespace {

constexpr size_t kBurst = 64;
// Frames accepted for transmission that the inner port had no room for yet.
constexpr size_t kMaxBacklog = 256;
constexpr uint64_t kBacklogRetryNs = 50 * kMicrosecond;

}  // namespace

FaultyPort::FaultyPort(std::unique_ptr<Port> inner, Clock& clock,
                       FaultOptions options, uint64_t seed)
    : inner_(std::move(inner)),
      clock_(clock),
      options_(options),
      random_(seed),
      info_(inner_->info()) {
  info_.is_reliable = false;
  info_.gathers = false;
  if (inner_->wake_fd() >= 0) MakeAlarm();
}

void FaultyPort::MakeAlarm() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  UniqueFd alarm(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  for (int fd : {inner_->wake_fd(), alarm.get()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) return;
  }
  epoll_ = std::move(epoll);
  alarm_ = std::move(alarm);
}

void FaultyPort::SetAlarm() {
  if (!alarm_ || is_stalled_) return;
  const uint64_t due_ns = std::min(NextDueNs(rx_), NextDueNs(tx_));
  if (due_ns == kNever) return;
  const uint64_t now_ns = clock_.NowNs();
  // Zero would stop the alarm.
  const uint64_t in_ns = due_ns > now_ns ? due_ns - now_ns : 1;
  itimerspec time{};
  time.it_value.tv_sec = static_cast<time_t>(in_ns / kSecond);
  time.it_value.tv_nsec = static_cast<long>(in_ns % kSecond);
  timerfd_settime(alarm_.get(), 0, &time, nullptr);
}

FaultyPort::~FaultyPort() {
  for (Lane* lane : {&rx_, &tx_}) {
    for (const Passing& passing : lane->ready) Release({&passing.frame, 1});
    for (const Held& held : lane->held) Release({&held.passing.frame, 1});
  }
}

bool FaultyPort::IsStalled(Lane& lane, bool is_enabled) {
  if (is_stalled_) return true;
  const uint64_t now_ns = clock_.NowNs();
  if (now_ns < lane.stalled_until_ns) return true;
  if (!is_enabled || options_.stall <= 0 || !random_.Chance(options_.stall)) {
    return false;
  }
  ++fault_counters_.stalls;
  lane.stalled_until_ns = now_ns + options_.stall_ns;
  return true;
}

void FaultyPort::Corrupt(const Frame& frame) {
  ++fault_counters_.corrupted;
  const uint64_t flips = 1 + random_.Below(8);
  for (uint64_t i = 0; i < flips; ++i) {
    const uint64_t bit = random_.Below(uint64_t{frame.length_bytes} * 8);
    frame.data[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }
}

bool FaultyPort::Copy(const Passing& from, Passing& to) {
  to.path = from.path;
  to.ring = from.ring;
  if (inner_->Allocate({&to.frame, 1}) == 0) return false;
  if (to.frame.capacity_bytes < from.frame.length_bytes) {
    inner_->Release({&to.frame, 1});
    return false;
  }
  std::memcpy(to.frame.data, from.frame.data, from.frame.length_bytes);
  to.frame.length_bytes = from.frame.length_bytes;
  to.frame.path = from.frame.path;
  return true;
}

// Takes the frame over and queues what becomes of it.
void FaultyPort::Suffer(Lane& lane, bool is_enabled, const Passing& passing) {
  if (!is_enabled || passing.frame.length_bytes == 0) {
    lane.ready.push_back(passing);
    return;
  }
  if (options_.loss > 0 && random_.Chance(options_.loss)) {
    ++fault_counters_.lost;
    inner_->Release({&passing.frame, 1});
    return;
  }
  Passing copy;
  const bool is_duplicated = options_.duplicate > 0 &&
                             random_.Chance(options_.duplicate) &&
                             Copy(passing, copy);
  // After copying: of two copies one may be good and the other bad.
  if (options_.corrupt > 0 && random_.Chance(options_.corrupt)) {
    Corrupt(passing.frame);
  }
  for (Held& held : lane.held) {
    if (held.frames_to_go > 0) --held.frames_to_go;
  }
  if (options_.reorder > 0 && options_.reorder_frames > 0 &&
      random_.Chance(options_.reorder)) {
    ++fault_counters_.reordered;
    const auto others =
        static_cast<uint32_t>(1 + random_.Below(options_.reorder_frames));
    lane.held.push_back(
        {passing, others, clock_.NowNs() + options_.reorder_hold_ns});
  } else {
    lane.ready.push_back(passing);
  }
  if (is_duplicated) {
    ++fault_counters_.duplicated;
    lane.ready.push_back(copy);
  }
  if (!lane.held.empty()) LetGo(lane, clock_.NowNs());
}

void FaultyPort::LetGo(Lane& lane, uint64_t now_ns) {
  auto is_due = [now_ns](const Held& held) {
    return held.frames_to_go == 0 || held.until_ns <= now_ns;
  };
  for (const Held& held : lane.held) {
    if (is_due(held)) lane.ready.push_back(held.passing);
  }
  std::erase_if(lane.held, is_due);
}

void FaultyPort::PullReceived() {
  std::array<Frame, kBurst> burst;
  const size_t count = inner_->Receive(burst);
  for (size_t i = 0; i < count; ++i) {
    Passing passing{burst[i].path, Ring::kDoorbell, burst[i]};
    if (burst[i].is_borrowed) {  // not ours to hold, or to change
      const bool has_copy = Copy({burst[i].path, Ring::kDoorbell, burst[i]},
                                 passing);
      inner_->Release({&burst[i], 1});
      if (!has_copy) continue;
    }
    Suffer(rx_, options_.on_receive, passing);
  }
  if (!rx_.held.empty()) LetGo(rx_, clock_.NowNs());
}

size_t FaultyPort::Receive(std::span<Frame> frames) {
  if (IsStalled(rx_, options_.on_receive)) return 0;
  if (rx_.ready.size() < frames.size()) PullReceived();
  const size_t count = std::min(frames.size(), rx_.ready.size());
  for (size_t i = 0; i < count; ++i) {
    frames[i] = rx_.ready.front().frame;
    rx_.ready.pop_front();
  }
  return count;
}

size_t FaultyPort::Allocate(std::span<Frame> frames) {
  return inner_->Allocate(frames);
}

void FaultyPort::Release(std::span<const Frame> frames) {
  inner_->Release(frames);
}

// Sends on what is ready, in bursts of frames that share a path and a manner of
// ringing.
void FaultyPort::FlushTransmit() {
  while (!tx_.ready.empty()) {
    std::array<Frame, kBurst> burst;
    const PathId path = tx_.ready.front().path;
    const Ring ring = tx_.ready.front().ring;
    size_t count = 0;
    while (count < kBurst && count < tx_.ready.size() &&
           tx_.ready[count].path == path && tx_.ready[count].ring == ring) {
      burst[count] = tx_.ready[count].frame;
      ++count;
    }
    const size_t sent =
        inner_->Transmit(path, std::span(burst).first(count), ring);
    tx_.ready.erase(tx_.ready.begin(),
                    tx_.ready.begin() + static_cast<ptrdiff_t>(sent));
    if (sent < count) return;
  }
}

size_t FaultyPort::Transmit(PathId path, std::span<const Frame> frames,
                            Ring ring) {
  if (IsStalled(tx_, options_.on_transmit)) return 0;
  FlushTransmit();
  size_t count = 0;
  while (count < frames.size() && tx_.ready.size() < kMaxBacklog) {
    Suffer(tx_, options_.on_transmit, {path, ring, frames[count++]});
  }
  FlushTransmit();
  return count;
}

bool FaultyPort::ArmWakeup() {
  SetAlarm();
  // A stalled port looks silent until that ends.
  if (is_stalled_ || clock_.NowNs() < rx_.stalled_until_ns) return true;
  if (!rx_.held.empty()) LetGo(rx_, clock_.NowNs());
  if (!rx_.ready.empty()) return false;
  is_inner_armed_ = inner_->ArmWakeup();
  return is_inner_armed_;
}

void FaultyPort::DisarmWakeup() {
  if (std::exchange(is_inner_armed_, false)) inner_->DisarmWakeup();
}

uint64_t FaultyPort::NextDueNs(const Lane& lane) const {
  uint64_t due_ns = kNever;
  for (const Held& held : lane.held) due_ns = std::min(due_ns, held.until_ns);
  if (clock_.NowNs() < lane.stalled_until_ns) {
    due_ns = std::min(due_ns, lane.stalled_until_ns);
  }
  return due_ns;
}

uint64_t FaultyPort::Service(uint64_t now_ns) {
  if (alarm_) {
    uint64_t expirations;
    [[maybe_unused]] const ssize_t size =
        read(alarm_.get(), &expirations, sizeof expirations);
  }
  uint64_t due_ns = inner_->Service(now_ns);
  if (is_stalled_) return due_ns;
  if (now_ns >= tx_.stalled_until_ns) {
    LetGo(tx_, now_ns);
    FlushTransmit();
    if (!tx_.ready.empty()) due_ns = std::min(due_ns, now_ns + kBacklogRetryNs);
  }
  if (now_ns >= rx_.stalled_until_ns) LetGo(rx_, now_ns);
  due_ns = std::min(due_ns, NextDueNs(rx_));
  due_ns = std::min(due_ns, NextDueNs(tx_));
  return due_ns;
}

}  // namespace tripwire

// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/memif_port.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace tripwire {
namespace {

constexpr uint32_t kEthernetHeaderBytes = 14;

}  // namespace

MacAddress MemifPort::RandomMac(Random random) {
  MacAddress mac;
  for (uint8_t& byte : mac.bytes) byte = static_cast<uint8_t>(random.Next());
  mac.bytes[0] = static_cast<uint8_t>((mac.bytes[0] & ~0x03) | 0x02);
  return mac;
}

MemifPort::MemifPort(const MemifOptions& options, const MacAddress& mac,
                     std::unique_ptr<FramePool> pool, UniqueFd epoll)
    : options_(options), pool_(std::move(pool)), epoll_(std::move(epoll)) {
  info_.name = options.name;
  info_.mac = mac;
  info_.max_frame_bytes = options.max_frame_bytes;
  info_.is_reliable = true;
  info_.gathers = true;
}

bool MemifPort::Watch(int fd, uint32_t events, Source source, uint32_t which) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = (static_cast<uint64_t>(source) << 32) | which;
  return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

MemifPort::Source MemifPort::SourceOf(const epoll_event& event) {
  return static_cast<Source>(event.data.u64 >> 32);
}

bool MemifPort::Adopt(int fd) { return Watch(fd, EPOLLIN, Source::kOwner, 0); }

// Of what happened, only the ringing of doorbells is told once; and whose they
// were may have changed since.
Heard MemifPort::Hear(std::span<const epoll_event> events) {
  Heard heard = HasBroken() ? Heard::kSlowWork : Heard::kNothing;
  for (const epoll_event& event : events) {
    const Source source = SourceOf(event);
    if (source == Source::kOwner) continue;
    if (source == Source::kDoorbell) ++counters_.wakeups;
    heard = std::max(
        heard, source == Source::kDoorbell ? Heard::kFrames : Heard::kSlowWork);
  }
  return heard;
}

void MemifPort::Unwatch(int fd) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

size_t MemifPort::Drop(std::span<const Frame> frames) {
  counters_.tx_dropped += frames.size();
  Release(frames);
  return frames.size();
}

size_t MemifPort::TakeFrom(MemifChannel& channel, PathId path,
                           std::span<Frame> frames) {
  size_t borrowed = 0;
  const size_t count =
      channel.Receive(*pool_, path, frames, counters_, &borrowed);
  borrowed_ += borrowed;
  // Slots that were copied from, or dropped, wait for those that were lent.
  if (borrowed_ == 0) {
    channel.GiveBack();
  } else if (lenders_.empty() || lenders_.back() != &channel) {
    lenders_.push_back(&channel);
  }
  return count;
}

void MemifPort::Release(std::span<const Frame> frames) {
  size_t returned = 0;
  for (const Frame& frame : frames) {
    if (frame.is_borrowed) {
      ++returned;
    } else {
      pool_->GiveOne(frame);
    }
  }
  if (returned == 0) return;
  if (returned > borrowed_) {
    std::fprintf(stderr, "frame given back twice, or to a port it is not of\n");
    std::abort();
  }
  borrowed_ -= returned;
  if (borrowed_ == 0) AllReturned();
}

void MemifPort::AllReturned() {
  for (MemifChannel* lender : lenders_) lender->GiveBack();
  lenders_.clear();
  if (!retired_.empty()) retired_.clear();
}

void MemifPort::Retire(std::unique_ptr<MemifChannel> channel) {
  if (borrowed_ > 0) retired_.push_back(std::move(channel));
}

size_t MemifPort::CountUnsendable(std::span<const Frame> frames) const {
  size_t count = 0;
  while (count < frames.size() &&
         CountSendable(frames.subspan(count, 1)) == 0) {
    ++count;
  }
  return count;
}

size_t MemifPort::CountSendable(std::span<const Frame> frames) const {
  size_t count = 0;
  while (count < frames.size() &&
         frames[count].length_bytes >= kEthernetHeaderBytes &&
         frames[count].total_bytes() <= info_.max_frame_bytes) {
    ++count;
  }
  return count;
}

}  // namespace tripwire

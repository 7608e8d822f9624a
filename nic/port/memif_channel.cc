// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/memif_channel.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace tripwire {
namespace {

constexpr size_t kMaxRegions = 64;
constexpr uint64_t kMaxRegionBytes = uint64_t{1} << 32;  // offsets have 32 bits
constexpr uint8_t kMaxLog2RingSize = 14;
constexpr uint32_t kCacheLine = 64;
// What the buffers of one direction may take up together; very long frames have
// fewer buffers than slots. (Rings that fit a core's cache are three times
// faster between cores that share one, and half again slower between cores that
// do not.)
constexpr uint32_t kBufferBytes = 20u << 20;
constexpr uint32_t kMinBuffers = 256;
// So many frames are copied before the peer is shown them.
constexpr size_t kPublishEvery = 8;
// If the first of them are so much, a sleeper wakes up while the rest is copied.
constexpr uint64_t kMuchBytes = 65536;

uint64_t RingBytes(uint8_t log2_size) {
  return sizeof(MemifRing) + (sizeof(MemifDescriptor) << log2_size);
}

// Whether the descriptor is an eventfd: nothing else can be rung.
bool IsEventFd(int fd) {
  char target[64];
  const ssize_t length = readlink(absl::StrCat("/proc/self/fd/", fd).c_str(),
                                  target, sizeof target);
  return length > 0 && std::string_view(target, static_cast<size_t>(length)) ==
                           "anon_inode:[eventfd]";
}

}  // namespace

void MemifChannel::Keep(void* base, uint64_t size_bytes) {
  regions_.push_back({static_cast<uint8_t*>(base), size_bytes});
  mappings_.emplace_back(base,
                         [size_bytes](void* at) { munmap(at, size_bytes); });
}

// --- Client -----------------------------------------------------------------

absl::StatusOr<std::unique_ptr<MemifChannel>> MemifChannel::Create(
    uint32_t frame_bytes, uint8_t log2_ring_size) {
  auto channel = std::make_unique<MemifChannel>();
  channel->owns_buffers_ = true;
  channel->frame_bytes_ = frame_bytes;
  uint32_t offset = 0;
  for (MemifDirection direction :
       {MemifDirection::kC2s, MemifDirection::kS2c}) {
    RingPlace& place = channel->Place(direction);
    place.is_known = true;
    place.offset = offset;
    place.log2_size = log2_ring_size;
    place.doorbell = UniqueFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!place.doorbell) {
      return absl::ErrnoToStatus(errno, "cannot create a doorbell");
    }
    offset += static_cast<uint32_t>(RingBytes(log2_ring_size));
  }
  const MemifRingView last = channel->View(MemifDirection::kS2c);
  const uint64_t size = last.first_buffer +
                        uint64_t{last.buffer_stride_bytes} * last.buffer_count;
  channel->memory_ =
      UniqueFd(memfd_create("tripwire-memif", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!channel->memory_ ||
      ftruncate(channel->memory_.get(), static_cast<off_t>(size)) != 0 ||
      fcntl(channel->memory_.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return absl::ErrnoToStatus(errno, "cannot create shared memory");
  }
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED,
                    channel->memory_.get(), 0);
  if (base == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, "cannot map shared memory");
  }
  channel->Keep(base, size);
  for (MemifDirection direction :
       {MemifDirection::kC2s, MemifDirection::kS2c}) {
    const MemifRingView view = channel->View(direction);
    view.ring->cookie = kMemifCookie;
  }
  return channel;
}

MemifAddRegion MemifChannel::OfferedRegion() const {
  MemifAddRegion message{};
  message.index = 0;
  message.size_bytes = regions_[0].size_bytes;
  return message;
}

MemifAddRing MemifChannel::OfferedRing(MemifDirection direction) const {
  const RingPlace& place = direction == MemifDirection::kC2s ? c2s_ : s2c_;
  MemifAddRing message{};
  message.flags = direction == MemifDirection::kC2s ? kMemifRingIsC2s : 0;
  message.offset = place.offset;
  message.log2_ring_size = place.log2_size;
  return message;
}

void MemifChannel::OpenOffered(bool peer_is_ours) {
  peer_is_ours_ = peer_is_ours;
  producer_.emplace(View(MemifDirection::kC2s), /*may_skew=*/true);
  consumer_.emplace(View(MemifDirection::kS2c));
  ring_fd_ = c2s_.doorbell.get();
  wake_fd_ = s2c_.doorbell.get();
  consumer_->Mask();
  // Only now: servers may reset the indices when they connect.
  consumer_->OfferBuffers();
  memory_.reset();
}

// --- Server -----------------------------------------------------------------

absl::Status MemifChannel::AddRegion(const MemifAddRegion& message,
                                     UniqueFd memory) {
  const uint64_t size = message.size_bytes.get();
  if (!memory) return absl::InvalidArgumentError("region without memory");
  if (producer_ || message.index.get() != regions_.size() ||
      regions_.size() >= kMaxRegions) {
    return absl::InvalidArgumentError("region index out of order");
  }
  struct stat info;
  if (size == 0 || size > kMaxRegionBytes || fstat(memory.get(), &info) != 0 ||
      info.st_size < 0 || static_cast<uint64_t>(info.st_size) < size) {
    return absl::InvalidArgumentError("region size does not fit its memory");
  }
  // Memory that could shrink under us would kill us at the next access.
  const int seals = fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return absl::InvalidArgumentError("region memory is not sealed");
  }
  void* base =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (base == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, "cannot map region");
  }
  Keep(base, size);
  return absl::OkStatus();
}

absl::Status MemifChannel::AddRing(const MemifAddRing& message,
                                   UniqueFd doorbell) {
  const bool is_c2s = (message.flags.get() & kMemifRingIsC2s) != 0;
  RingPlace& place = is_c2s ? c2s_ : s2c_;
  if (producer_ || place.is_known || message.index.get() != 0) {
    return absl::InvalidArgumentError("more than one ring each way");
  }
  if (!doorbell || !IsEventFd(doorbell.get())) {
    return absl::InvalidArgumentError("ring without an eventfd");
  }
  const int flags = fcntl(doorbell.get(), F_GETFL);
  if (flags < 0 || fcntl(doorbell.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return absl::ErrnoToStatus(errno, "ring eventfd");
  }
  const uint16_t region = message.region.get();
  const uint32_t offset = message.offset.get();
  const uint8_t log2_size = message.log2_ring_size;
  if (log2_size > kMaxLog2RingSize || region >= regions_.size() ||
      offset % kCacheLine != 0 || offset > regions_[region].size_bytes ||
      RingBytes(log2_size) > regions_[region].size_bytes - offset) {
    return absl::InvalidArgumentError("ring does not lie within its region");
  }
  place.is_known = true;
  place.region = region;
  place.offset = offset;
  place.log2_size = log2_size;
  place.doorbell = std::move(doorbell);
  return absl::OkStatus();
}

absl::Status MemifChannel::Open(bool peer_is_ours) {
  if (producer_ || !c2s_.is_known || !s2c_.is_known) {
    return absl::InvalidArgumentError("connected without a ring each way");
  }
  const MemifRingView c2s = View(MemifDirection::kC2s);
  const MemifRingView s2c = View(MemifDirection::kS2c);
  for (const MemifRingView* view : {&c2s, &s2c}) {
    const uint32_t cookie = std::atomic_ref<uint32_t>(view->ring->cookie)
                                .load(std::memory_order_relaxed);
    if (cookie != kMemifCookie) {
      return absl::InvalidArgumentError("not a ring: wrong cookie");
    }
  }
  peer_is_ours_ = peer_is_ours;
  producer_.emplace(s2c, /*may_skew=*/peer_is_ours);
  consumer_.emplace(c2s);
  ring_fd_ = s2c_.doorbell.get();
  wake_fd_ = c2s_.doorbell.get();
  consumer_->Mask();
  return absl::OkStatus();
}

PeerMemory MemifChannel::ShownByPeer() const {
  constexpr size_t kShown = 1;
  if (owns_buffers_ || !peer_is_ours_ || regions_.size() != kShown + 1 ||
      c2s_.region == kShown || s2c_.region == kShown) {
    return {};
  }
  return {{regions_[kShown].base, regions_[kShown].size_bytes},
          mappings_[kShown]};
}

// --- Both -------------------------------------------------------------------

MemifRingView MemifChannel::View(MemifDirection direction) {
  const RingPlace& place = Place(direction);
  MemifRingView view;
  view.direction = direction;
  view.slot_count = static_cast<uint16_t>(1u << place.log2_size);
  view.regions = regions_;
  if (!regions_.empty()) {
    view.ring = reinterpret_cast<MemifRing*>(regions_[place.region].base +
                                             place.offset);
  }
  view.owns_buffers = owns_buffers_;
  if (owns_buffers_) {
    // Two lines apart from a multiple of the page, as in FramePool.
    view.buffer_stride_bytes =
        (kFrameSkewBytes + frame_bytes_ + kCacheLine - 1) / kCacheLine *
            kCacheLine +
        2 * kCacheLine;
    view.buffer_bytes = frame_bytes_ + kFrameSkewBytes;
    view.buffer_count = static_cast<uint16_t>(std::min<uint32_t>(
        view.slot_count,
        std::max(kMinBuffers,
                 std::bit_floor(kBufferBytes / view.buffer_stride_bytes))));
    view.first_buffer = static_cast<uint32_t>(2 * RingBytes(place.log2_size));
    if (direction == MemifDirection::kS2c) {
      view.first_buffer += view.buffer_stride_bytes * view.buffer_count;
    }
  }
  return view;
}

size_t MemifChannel::Receive(FramePool& pool, PathId path,
                             std::span<Frame> frames, PortCounters& counters,
                             size_t* borrowed) {
  size_t count = 0;
  while (count < frames.size() && consumer_->HasFrames()) {
    Frame& frame = frames[count];
    const std::span<uint8_t> in_place = consumer_->PopInPlace();
    if (in_place.size() > pool.frame_bytes()) {  // longer than we said we take
      ++counters.rx_no_buffer;
      continue;
    }
    if (!in_place.empty()) {
      frame.data = in_place.data();
      frame.length_bytes = static_cast<uint32_t>(in_place.size());
      frame.capacity_bytes = frame.length_bytes;
      frame.path = path;
      frame.cookie = nullptr;
      frame.is_borrowed = true;
      frame.tail = nullptr;
      frame.tail_bytes = 0;
      ++*borrowed;
    } else if (!ReceiveChained(pool, path, frame, counters)) {
      if (pool.available() == 0) break;  // the frames wait in the ring
      continue;
    }
    ++count;
    ++counters.rx_frames;
    counters.rx_bytes += frame.length_bytes;
  }
  return count;
}

bool MemifChannel::ReceiveChained(FramePool& pool, PathId path, Frame& frame,
                                  PortCounters& counters) {
  if (pool.Take({&frame, 1}) == 0) {
    ++counters.rx_no_buffer;
    return false;
  }
  bool is_too_long;
  frame.length_bytes = static_cast<uint32_t>(
      consumer_->Pop({frame.data, frame.capacity_bytes}, &is_too_long));
  frame.path = path;
  if (frame.length_bytes > 0) return true;
  counters.rx_no_buffer += is_too_long;
  pool.Give({&frame, 1});
  return false;
}

size_t MemifChannel::Send(std::span<const Frame> frames, Ring ring,
                          DoorbellRinger& ringer, PortCounters& counters) {
  size_t count = 0;
  uint64_t bytes = 0;
  for (const Frame& frame : frames) {
    if (!producer_->Push({frame.data, frame.length_bytes},
                         {frame.tail, frame.tail_bytes})) {
      break;
    }
    bytes += frame.total_bytes();
    if (++count % kPublishEvery != 0) continue;
    producer_->Publish();
    if (count == kPublishEvery && bytes >= kMuchBytes) {
      RingIfWanted(ring, false, ringer, counters);
    }
  }
  counters.tx_frames += count;
  counters.tx_bytes += bytes;
  producer_->Publish();
  RingIfWanted(ring, count < frames.size(), ringer, counters);
  return count;
}

void MemifChannel::RingIfWanted(Ring ring, bool is_short,
                                DoorbellRinger& ringer,
                                PortCounters& counters) {
  // A ring that fills up quietly would never be emptied by a sleeping peer.
  if (ring == Ring::kQuietly && !is_short) return;
  if (!producer_->PeerSleeps(/*claim=*/peer_is_ours_)) return;
  if (!ringer.RingBell(ring_fd_, trusts_peer_)) has_no_bell_ = true;
  ++counters.doorbells_rung;
}

}  // namespace tripwire

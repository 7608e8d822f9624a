// SPDX-License-Identifier: BSD-3-Clause
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "nic/port/memif_port.h"
#include "spdlog/spdlog.h"

namespace tripwire {
namespace {

constexpr uint64_t kJoinTimeoutNs = 5 * kSecond;
constexpr uint64_t kAcceptPauseNs = 200 * kMillisecond;
constexpr size_t kMaxJoining = 1024;
constexpr uint32_t kMaxMembers = 1u << 16;
constexpr uint16_t kGenerationMask = 0x7fff;
// Frames taken from one member before the next has its turn.
constexpr size_t kTurnFrames = 32;
// After an edge the eventfd needs no reading, which saves a system call.
constexpr uint32_t kDoorbellEvents = EPOLLIN | EPOLLET;

// The same for every listener at this path, one after the other, and another for
// those elsewhere, also where the path has another name (in a container).
uint64_t SeedOf(const std::string& path, size_t index) {
  const std::filesystem::path file(path);
  struct stat directory {};
  if (stat(file.has_parent_path() ? file.parent_path().c_str() : ".",
           &directory) != 0) {
    return Random::FromSystem().Next();
  }
  const std::string text =
      absl::StrCat(directory.st_dev, ":", directory.st_ino, ":",
                   file.filename().string(), ":", index);
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, 64 bits
  for (const char c : text) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  return hash;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Port>> MemifListenerPort::Open(
    const MemifOptions& options) {
  auto ports = OpenDivided(options, 1);
  if (!ports.ok()) return ports.status();
  return std::move(ports->front());
}

absl::StatusOr<std::vector<std::unique_ptr<Port>>>
MemifListenerPort::OpenDivided(const MemifOptions& options, size_t count) {
  auto socket = MemifServerSocket::Listen(options.path);
  if (!socket.ok()) return socket.status();
  const auto lobby = MemifLobby::Create(*std::move(socket), count);
  if (lobby == nullptr) {
    return absl::ErrnoToStatus(errno, "cannot create an eventfd");
  }
  std::vector<std::unique_ptr<Port>> ports;
  for (size_t i = 0; i < count; ++i) {
    auto pool = FramePool::Create(options.buffers, options.max_frame_bytes);
    if (!pool.ok()) return pool.status();
    UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll) return absl::ErrnoToStatus(errno, "cannot create an epoll");
    ports.emplace_back(new MemifListenerPort(options, *std::move(pool),
                                             std::move(epoll), lobby, i));
  }
  return ports;
}

MemifListenerPort::MemifListenerPort(const MemifOptions& options,
                                     std::unique_ptr<FramePool> pool,
                                     UniqueFd epoll,
                                     std::shared_ptr<MemifLobby> lobby,
                                     size_t index)
    : MemifPort(options, RandomMac(Random(SeedOf(options.path, index))),
                std::move(pool), std::move(epoll)),
      lobby_(std::move(lobby)),
      index_(index) {
  Listen();
  Watch(lobby_->bell(index_), EPOLLIN, Source::kGiven, 0);
}

MemifListenerPort::~MemifListenerPort() { lobby_->Close(index_); }

// Of the ports that sleep, a client wakes one.
bool MemifListenerPort::Listen() {
  return Watch(lobby_->socket(), EPOLLIN | EPOLLEXCLUSIVE, Source::kListener,
               0);
}

PathId MemifListenerPort::PathOf(uint32_t place) const {
  return place | (uint32_t{members_[place].generation} << 16);
}

MemifListenerPort::Member* MemifListenerPort::Find(PathId path) {
  const uint32_t place = path & 0xffff;
  if (place >= members_.size() || members_[place].channel == nullptr ||
      members_[place].generation != path >> 16) {
    return nullptr;
  }
  return &members_[place];
}

// --- Traffic ----------------------------------------------------------------

size_t MemifListenerPort::Receive(std::span<Frame> frames) {
  size_t count = 0;
  size_t idle = 0;  // members in a row that have nothing more
  while (count < frames.size() && idle < active_.size()) {
    if (next_to_serve_ >= active_.size()) next_to_serve_ = 0;
    const uint32_t place = active_[next_to_serve_++];
    MemifChannel& channel = *members_[place].channel;
    const size_t turn = std::min(frames.size() - count, kTurnFrames);
    const size_t got =
        ReceiveFrom(channel, PathOf(place), frames.subspan(count, turn));
    count += got;
    idle = got < turn ? idle + 1 : 0;
    if (channel.is_broken()) has_broken_ = true;
  }
  if (has_broken_) RemoveBroken();
  return count;
}

size_t MemifListenerPort::Transmit(PathId path, std::span<const Frame> frames,
                                   Ring ring) {
  size_t done = 0;
  while (done < frames.size()) {
    std::span<const Frame> rest = frames.subspan(done);
    const size_t run = CountSendable(rest);
    if (run == 0) {
      done += Drop(rest.first(CountUnsendable(rest)));
      continue;
    }
    rest = rest.first(run);
    if (path == kAllPaths) {
      Broadcast(rest, ring);
      Release(rest);
      done += run;
      continue;
    }
    Member* member = Find(path);
    if (member == nullptr) {
      done += Drop(rest);
      continue;
    }
    const size_t sent = member->channel->Send(rest, ring, ringer_, counters_);
    Release(rest.first(sent));
    done += sent;
    if (member->channel->is_broken()) has_broken_ = true;
    if (sent < run) break;
  }
  if (has_broken_) RemoveBroken();
  return done;
}

void MemifListenerPort::Broadcast(std::span<const Frame> frames, Ring ring) {
  for (uint32_t place : active_) {
    MemifChannel& channel = *members_[place].channel;
    const size_t sent = channel.Send(frames, ring, ringer_, counters_);
    counters_.tx_dropped += frames.size() - sent;
    if (channel.is_broken()) has_broken_ = true;
  }
}

PeerMemory MemifListenerPort::ShownBy(PathId path) {
  const Member* member = Find(path);
  return member == nullptr ? PeerMemory{} : member->channel->ShownByPeer();
}

// --- Sleeping ---------------------------------------------------------------

bool MemifListenerPort::ArmWakeup() {
  for (uint32_t place : active_) members_[place].channel->Unmask();
  // Pairs with the fence in MemifProducer::PeerSleeps: either the sender sees
  // that we sleep, or we see its frame below.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  is_armed_ = true;
  for (uint32_t place : active_) {
    if (members_[place].channel->HasFrames()) {
      DisarmWakeup();
      return false;
    }
  }
  return true;
}

void MemifListenerPort::DisarmWakeup() {
  if (!is_armed_) return;
  is_armed_ = false;
  for (uint32_t place : active_) members_[place].channel->Mask();
}

// --- Members ----------------------------------------------------------------

uint64_t MemifListenerPort::Service(uint64_t now_ns) {
  std::array<epoll_event, 64> events;
  while (true) {
    const int count = epoll_wait(epoll_.get(), events.data(),
                                 static_cast<int>(events.size()), 0);
    for (int i = 0; i < count; ++i) {
      const auto which = static_cast<uint32_t>(events[i].data.u64);
      switch (SourceOf(events[i])) {
        case Source::kListener:
          AcceptAll(now_ns);
          break;
        case Source::kGiven:
          for (;;) {
            MemifLobby::Client client = lobby_->TakeGiven(index_);
            if (!client.socket) break;
            BeginJoining(std::move(client), now_ns);
          }
          break;
        case Source::kHandshake:
          ContinueJoining(which);
          break;
        case Source::kControl:
          // After the handshake a member has nothing to say but goodbye.
          if (which < members_.size() && members_[which].channel) {
            Remove(which, "left");
          }
          break;
        case Source::kDoorbell:
          ++counters_.wakeups;
          break;
        case Source::kOwner:
          break;
      }
    }
    if (count < static_cast<int>(events.size())) break;
  }
  if (has_broken_) RemoveBroken();
  if (accept_again_ns_ <= now_ns) {
    accept_again_ns_ = kNever;
    Listen();
  }
  if (joining_.empty()) next_deadline_ns_ = kNever;
  if (next_deadline_ns_ <= now_ns) {
    next_deadline_ns_ = kNever;
    absl::erase_if(joining_, [&](const auto& entry) {
      if (entry.second.deadline_ns <= now_ns) {
        Unwatch(entry.second.handshake->socket());
        return true;
      }
      next_deadline_ns_ = std::min(next_deadline_ns_, entry.second.deadline_ns);
      return false;
    });
  }
  return std::min(accept_again_ns_, next_deadline_ns_);
}

void MemifListenerPort::AcceptAll(uint64_t now_ns) {
  while (joining_.size() < kMaxJoining) {
    MemifLobby::Client client = lobby_->Accept();
    if (!client.socket) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
        spdlog::warn("{}: cannot accept a client: {}", info_.name,
                     std::strerror(errno));
        break;
      }
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return;
    }
    if (client.seat.port() == index_) {
      BeginJoining(std::move(client), now_ns);
    } else {
      lobby_->Give(std::move(client));
    }
  }
  // Out of descriptors, or too many at once: look away for a while, or the
  // waiting clients would keep us awake.
  Unwatch(lobby_->socket());
  accept_again_ns_ = now_ns + kAcceptPauseNs;
}

void MemifListenerPort::BeginJoining(MemifLobby::Client client,
                                     uint64_t now_ns) {
  Joining joining{
      std::make_unique<MemifServerHandshake>(std::move(client.socket)),
      std::move(client.seat), now_ns + kJoinTimeoutNs};
  const uint32_t id = next_joining_id_++;
  if (!joining.handshake->Start().ok() ||
      !Watch(joining.handshake->socket(), EPOLLIN, Source::kHandshake, id)) {
    return;
  }
  next_deadline_ns_ = std::min(next_deadline_ns_, joining.deadline_ns);
  joining_.emplace(id, std::move(joining));
}

void MemifListenerPort::ContinueJoining(uint32_t id) {
  auto entry = joining_.find(id);
  if (entry == joining_.end()) return;
  const absl::StatusOr<bool> done = entry->second.handshake->Continue();
  if (done.ok() && !*done) return;
  Joining joining = std::move(entry->second);
  joining_.erase(entry);
  Unwatch(joining.handshake->socket());
  if (done.ok()) {
    Admit(std::move(joining));
  } else {
    spdlog::debug("{}: a client could not join: {}", info_.name,
                  done.status().ToString());
  }
}

void MemifListenerPort::Admit(Joining joining) {
  uint32_t place = static_cast<uint32_t>(members_.size());
  if (!free_places_.empty()) {
    place = free_places_.back();
    free_places_.pop_back();
  } else if (place < kMaxMembers) {
    members_.emplace_back();
  } else {
    spdlog::warn("{}: no place for another client", info_.name);
    return;
  }
  Member& member = members_[place];
  member.channel = joining.handshake->TakeChannel();
  member.control = joining.handshake->TakeSocket();
  member.seat = std::move(joining.seat);
  active_.push_back(place);
  if (!Watch(member.control.get(), EPOLLIN | EPOLLRDHUP, Source::kControl,
             place) ||
      !Watch(member.channel->wake_fd(), kDoorbellEvents, Source::kDoorbell,
             place)) {
    return Remove(place, "cannot be watched");
  }
  if (is_armed_) member.channel->Unmask();
  spdlog::debug("{}: {} joined as path {:#x}", info_.name,
                joining.handshake->peer_name(), PathOf(place));
}

void MemifListenerPort::Remove(uint32_t place, const char* why) {
  Member& member = members_[place];
  spdlog::debug("{}: path {:#x} {}", info_.name, PathOf(place), why);
  // Closing is not enough: epoll keeps what lives on in the peer (the doorbell)
  // or in a child of this process (any descriptor).
  Unwatch(member.channel->wake_fd());
  Unwatch(member.control.get());
  Retire(std::move(member.channel));
  member.control.reset();
  member.seat = MemifLobby::Seat();
  member.generation =
      static_cast<uint16_t>((member.generation + 1) & kGenerationMask);
  std::erase(active_, place);
  free_places_.push_back(place);
}

void MemifListenerPort::RemoveBroken() {
  has_broken_ = false;
  for (uint32_t place = 0; place < members_.size(); ++place) {
    MemifChannel* channel = members_[place].channel.get();
    if (channel != nullptr && channel->is_broken()) {
      Remove(place, "broke the rules of the ring");
    }
  }
}

}  // namespace tripwire

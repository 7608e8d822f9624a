// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_MEMIF_PORT_H_
#define TRIPWIRE_NIC_PORT_MEMIF_PORT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "nic/base/clock.h"
#include "nic/base/fd.h"
#include "nic/base/random.h"
#include "nic/port/frame_pool.h"
#include "nic/port/memif_channel.h"
#include "nic/port/memif_handshake.h"
#include "nic/port/memif_lobby.h"
#include "nic/port/memif_socket.h"
#include "nic/port/port.h"

namespace tripwire {

struct MemifOptions {
  std::string name;  // of the port, for messages
  std::string path;  // of the socket
  // 16 KiB of data and the headers of a write, so that writes of a power of two
  // fill their frames.
  uint32_t max_frame_bytes = 16384 + 64;
  size_t buffers = 8192;
  bool wait = false;  // client: open even though nobody listens yet
  // Client: how much memory listeners of ours can read where it lies; address
  // space until it is touched. 0: none.
  uint64_t shown_bytes = uint64_t{256} << 20;
};

// What the two ends of a memif have in common: buffers, and a descriptor that
// gathers everything worth waking for.
class MemifPort : public Port {
 public:
  const PortInfo& info() const override { return info_; }
  size_t Allocate(std::span<Frame> frames) override {
    return pool_->Take(frames);
  }
  void Release(std::span<const Frame> frames) final;
  int wake_fd() const override { return epoll_.get(); }
  bool Adopt(int fd) override;
  Heard Hear(std::span<const epoll_event> events) override;
  PortCounters counters() const override { return counters_; }

 protected:
  MemifPort(const MemifOptions& options, const MacAddress& mac,
            std::unique_ptr<FramePool> pool, UniqueFd epoll);

  // What an epoll event is about.
  enum class Source : uint32_t {
    kListener,
    kGiven,
    kHandshake,
    kControl,
    kDoorbell,
    kOwner
  };
  static Source SourceOf(const epoll_event& event);
  // Unicast, locally administered (IEEE 802).
  static MacAddress RandomMac(Random random);
  bool Watch(int fd, uint32_t events, Source source, uint32_t which);
  void Unwatch(int fd);

  // Whether a peer that broke the rules waits to be removed.
  virtual bool HasBroken() const = 0;

  // How many frames at the front no peer could take, or all peers could.
  size_t CountUnsendable(std::span<const Frame> frames) const;
  size_t CountSendable(std::span<const Frame> frames) const;
  // Accepts and drops: there is nobody there.
  size_t Drop(std::span<const Frame> frames);

  // Receives from one channel. Frames it hands out lie in the channel's memory
  // until they are released, whatever becomes of the channel meanwhile.
  size_t ReceiveFrom(MemifChannel& channel, PathId path,
                     std::span<Frame> frames) {
    return channel.HasFrames() ? TakeFrom(channel, path, frames) : 0;
  }
  // Ends a channel, or keeps its memory until no frame lies there any more.
  void Retire(std::unique_ptr<MemifChannel> channel);

  const MemifOptions options_;
  PortInfo info_;
  PortCounters counters_;
  std::unique_ptr<FramePool> pool_;
  UniqueFd epoll_;
  DoorbellRinger ringer_;

 private:
  size_t TakeFrom(MemifChannel& channel, PathId path, std::span<Frame> frames);
  void AllReturned();

  size_t borrowed_ = 0;                  // frames handed out, still in rings
  std::vector<MemifChannel*> lenders_;   // whose they are
  std::vector<std::unique_ptr<MemifChannel>> retired_;
};

// `memif:PATH,listen`: any number of clients may join; each is a path.
//
// Thread safety and invariants: as for Port. Further:
//  1. A member that stalls only fills its own ring; one that dies or breaks the
//     rules is removed, and frames received from it stay valid.
//  2. The path of a member that left is not used for another until 32768 others
//     have had its place.
//  3. Its MAC is that of whoever listened at its path before it, as a machine's
//     that was started again is: what is sent to its predecessor reaches it.
class MemifListenerPort final : public MemifPort {
 public:
  static absl::StatusOr<std::unique_ptr<Port>> Open(
      const MemifOptions& options);
  // Several ports over one socket, among which its clients are divided evenly
  // as they come, each for good. Each port has its own MAC and is a thread's
  // own: they share nothing but the joining of clients.
  static absl::StatusOr<std::vector<std::unique_ptr<Port>>> OpenDivided(
      const MemifOptions& options, size_t count);
  ~MemifListenerPort() override;

  size_t Receive(std::span<Frame> frames) override;
  size_t Transmit(PathId path, std::span<const Frame> frames,
                  Ring ring) override;
  bool ArmWakeup() override;
  void DisarmWakeup() override;
  uint64_t Service(uint64_t now_ns) override;
  PeerMemory ShownBy(PathId path) override;

 private:
  struct Member {
    std::unique_ptr<MemifChannel> channel;  // null: a free place
    UniqueFd control;
    MemifLobby::Seat seat;
    uint16_t generation = 0;
  };
  struct Joining {
    std::unique_ptr<MemifServerHandshake> handshake;
    MemifLobby::Seat seat;
    uint64_t deadline_ns;
  };

  MemifListenerPort(const MemifOptions& options,
                    std::unique_ptr<FramePool> pool, UniqueFd epoll,
                    std::shared_ptr<MemifLobby> lobby, size_t index);
  PathId PathOf(uint32_t place) const;
  Member* Find(PathId path);
  bool Listen();
  void AcceptAll(uint64_t now_ns);
  void BeginJoining(MemifLobby::Client client, uint64_t now_ns);
  void ContinueJoining(uint32_t id);
  void Admit(Joining joining);
  void Remove(uint32_t place, const char* why);
  void RemoveBroken();
  bool HasBroken() const override { return has_broken_; }
  void Broadcast(std::span<const Frame> frames, Ring ring);

  const std::shared_ptr<MemifLobby> lobby_;
  const size_t index_;                 // of this port there
  uint64_t accept_again_ns_ = kNever;  // after running out of descriptors
  std::vector<Member> members_;        // by place
  std::vector<uint32_t> free_places_;
  std::vector<uint32_t> active_;  // places of members
  size_t next_to_serve_ = 0;      // index in active_: fairness
  absl::flat_hash_map<uint32_t, Joining> joining_;
  uint32_t next_joining_id_ = 0;
  uint64_t next_deadline_ns_ = kNever;  // of those that join
  bool is_armed_ = false;
  bool has_broken_ = false;
};

// `memif:PATH`: one path, to the listener. When the listener goes away the
// port joins again, on its own, as soon as one is back.
class MemifClientPort final : public MemifPort {
 public:
  // Waits a few seconds at most for the listener's answer.
  static absl::StatusOr<std::unique_ptr<Port>> Open(
      const MemifOptions& options);
  ~MemifClientPort() override;

  size_t Receive(std::span<Frame> frames) override;
  size_t Transmit(PathId path, std::span<const Frame> frames,
                  Ring ring) override;
  bool ArmWakeup() override;
  void DisarmWakeup() override;
  uint64_t Service(uint64_t now_ns) override;
  std::span<uint8_t> ShownMemory() override { return shown_; }

 private:
  MemifClientPort(const MemifOptions& options, std::unique_ptr<FramePool> pool,
                  UniqueFd epoll)
      : MemifPort(options, RandomMac(Random::FromSystem()), std::move(pool),
                  std::move(epoll)) {}
  void MakeShownMemory();
  absl::Status StartJoining(uint64_t now_ns);
  absl::Status ContinueJoining();
  void StopJoining();
  absl::Status JoinNow();
  void Leave(const char* why, uint64_t now_ns);
  void RetryLater(uint64_t now_ns);
  bool HasBroken() const override {
    return channel_ != nullptr && channel_->is_broken();
  }

  UniqueFd shown_fd_;
  std::span<uint8_t> shown_;
  std::unique_ptr<MemifChannel> channel_;  // while joined
  bool has_left_ = false;                  // and was joined before
  UniqueFd control_;
  std::unique_ptr<MemifClientHandshake> handshake_;  // while joining
  uint64_t next_step_ns_ = kNever;  // to give up joining, or to try again
  uint64_t backoff_ns_ = 0;
  bool is_armed_ = false;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_MEMIF_PORT_H_

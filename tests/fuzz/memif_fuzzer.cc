// SPDX-License-Identifier: BSD-3-Clause
// A memif peer that sends any messages, offers any memory, and writes anything
// into it at any moment: as a client to our server's end, and the other way
// round.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>

#include "nic/port/frame_pool.h"
#include "nic/port/memif_handshake.h"
#include "nic/wire/parse.h"
#include "tests/fuzz/bytes.h"

using namespace tripwire;  // NOLINT: a fuzzer's main file

namespace {

constexpr size_t kShared = 1 << 16;

// The memory both sides see, mapped by the hostile one.
class Shared {
 public:
  ~Shared() {
    if (base_ != nullptr) munmap(base_, size_);
  }
  UniqueFd Make(bool sealed) {
    UniqueFd fd(memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (ftruncate(fd.get(), kShared) != 0) std::abort();
    if (sealed && fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
      std::abort();
    }
    Map(fd.get(), kShared);
    return fd;
  }
  void Map(int fd, size_t size) {
    if (base_ != nullptr) return;
    void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) return;
    base_ = static_cast<uint8_t*>(base);
    size_ = size;
  }
  void Poke(fuzz::Script& script) {
    if (base_ == nullptr) return;
    const uint8_t where = script.Take();
    size_t at = script.Take<uint16_t>();
    switch (where % 4) {
      case 0: at = at % 8; break;               // a ring's cookie, flags, head
      case 1: at = 64 + at % 2; break;          // its tail
      case 2: at = 128 + at % 512; break;       // its descriptors
      default: at *= where / 4 + 1u;
    }
    const auto bytes = script.TakeBytes(1 + where % 16);
    if (at < size_ && !bytes.empty()) {
      std::memcpy(base_ + at, bytes.data(), std::min(bytes.size(), size_ - at));
    }
  }
  void MakeRings() {
    if (base_ == nullptr || size_ < 2 * 8192) return;
    const uint32_t cookie = kMemifCookie;
    std::memcpy(base_, &cookie, sizeof cookie);
    std::memcpy(base_ + 8192, &cookie, sizeof cookie);
  }
  bool made() const { return base_ != nullptr; }

 private:
  uint8_t* base_ = nullptr;
  size_t size_ = 0;
};

// Receives, and reads what was lent while its owner writes to it.
void Take(fuzz::Script& script, MemifChannel& channel, FramePool& pool,
          Shared& shared, PortCounters& counters) {
  Frame frames[8];
  size_t borrowed = 0;
  const size_t n = channel.Receive(pool, 3, frames, counters, &borrowed);
  fuzz::Require(n <= 8 && borrowed <= n, "no more frames than asked for");
  shared.Poke(script);
  for (size_t i = 0; i < n; ++i) {
    const Frame& frame = frames[i];
    fuzz::Require(frame.length_bytes <= frame.capacity_bytes &&
                      frame.length_bytes <= pool.frame_bytes() &&
                      frame.path == 3,
                  "frames fit their buffers");
    wire::FrameView view;
    if (wire::Parse({frame.data, frame.length_bytes}, &view) ==
        wire::ParseResult::kOk) {
      fuzz::Require(view.payload.size() == view.header->length.get(),
                    "what was checked does not change");
    }
    if (frame.is_borrowed) {
      --borrowed;
    } else {
      pool.Give({&frame, 1});
    }
  }
  fuzz::Require(borrowed == 0, "borrowed frames are counted");
  channel.GiveBack();
}

void UseChannel(fuzz::Script& script, MemifChannel& channel, Shared& shared) {
  auto pool = FramePool::Create(64, 2048);
  if (!pool.ok()) std::abort();
  PortCounters counters;
  static DoorbellRinger ringer;  // making one takes the kernel milliseconds
  static constexpr uint8_t tail[512] = {};
  for (int step = 0; step < 100 && !script.ended(); ++step) {
    const uint8_t what = script.Take();
    switch (what % 4) {
      case 0: Take(script, channel, **pool, shared, counters); break;
      case 1: {
        Frame frame;
        if ((*pool)->Take({&frame, 1}) == 0) std::abort();
        std::memset(frame.data, what, 1600);
        frame.length_bytes = 60 + what * 6u;
        frame.tail = tail;
        frame.tail_bytes = (what & 8) != 0 ? what * 2u : 0;
        const size_t n =
            channel.Send({&frame, 1}, Ring::kDoorbell, ringer, counters);
        fuzz::Require(n <= 1, "no more frames than given");
        (*pool)->Give({&frame, 1});
        break;
      }
      case 2:
        if ((what & 4) != 0) {
          channel.Unmask();
        } else {
          channel.Mask();
        }
        channel.HasFrames();
        break;
      default:
        shared.Poke(script);
    }
  }
  fuzz::Require((*pool)->available() == 64, "no buffer is lost");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Script script(data, size);
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                 ends) != 0) {
    std::abort();
  }
  UniqueFd hostile(ends[0]);
  const uint8_t shape = script.Take();
  const bool to_server = (shape & 1) == 0;
  std::unique_ptr<MemifHandshake> handshake;
  if (to_server) {
    auto server = std::make_unique<MemifServerHandshake>(UniqueFd(ends[1]));
    if (!server->Start().ok()) std::abort();
    handshake = std::move(server);
  } else {
    handshake = std::make_unique<MemifClientHandshake>(UniqueFd(ends[1]), 2048, -1, 0);
  }
  Shared shared;
  int honest = 0;  // how far an honest peer's script has come
  for (int step = 0; step < 40 && !script.ended(); ++step) {
    const uint8_t what = script.Take();
    UniqueFd fd;
    MemifMessage message{};
    auto type = static_cast<MemifMessageType>(what % 10);
    size_t body_bytes = sizeof message.body;
    if ((what & 0x80) == 0) {  // the next thing an honest peer would say
      static constexpr MemifMessageType kClient[] = {
          MemifMessageType::kInit, MemifMessageType::kAddRegion,
          MemifMessageType::kAddRing, MemifMessageType::kAddRing,
          MemifMessageType::kConnect};
      static constexpr MemifMessageType kServer[] = {
          MemifMessageType::kHello, MemifMessageType::kAck,
          MemifMessageType::kAck,   MemifMessageType::kAck,
          MemifMessageType::kAck,   MemifMessageType::kConnected};
      type = to_server ? kClient[honest % 5] : kServer[honest % 6];
      if (type == MemifMessageType::kInit) {
        MemifInit init{};
        init.version = kMemifVersion;
        SetMemifText(init.name, "fuzz");
        std::memcpy(message.body, &init, sizeof init);
      } else if (type == MemifMessageType::kAddRegion) {
        MemifAddRegion region{};
        region.size_bytes = kShared;
        std::memcpy(message.body, &region, sizeof region);
        fd = shared.Make(true);
      } else if (type == MemifMessageType::kAddRing) {
        MemifAddRing ring{};
        ring.flags = honest % 5 == 2 ? kMemifRingIsC2s : 0;
        ring.offset = honest % 5 == 2 ? 0 : 8192;
        ring.log2_ring_size = what % 8;
        std::memcpy(message.body, &ring, sizeof ring);
        fd.reset(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
      } else if (type == MemifMessageType::kHello) {
        MemifHello hello{};
        hello.min_version = kMemifVersion;
        hello.max_version = kMemifVersion;
        hello.max_log2_ring_size = what % 11;
        std::memcpy(message.body, &hello, sizeof hello);
      } else if (type == MemifMessageType::kConnect && shared.made()) {
        MemifConnect connect{};
        SetMemifText(connect.name, "fuzz");
        std::memcpy(message.body, &connect, sizeof connect);
        shared.MakeRings();
      }
      ++honest;
    } else {
      const auto bytes = script.TakeBytes(script.Take() % 127);
      std::copy(bytes.begin(), bytes.end(), message.body);
      if ((what & 0x40) != 0) fd = shared.Make((what & 0x20) != 0);
      if ((what & 0x10) != 0) fd.reset(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
      body_bytes = bytes.size();
    }
    SendMemifBytes(hostile.get(), type, message.body, body_bytes, fd.get())
        .IgnoreError();
    const absl::StatusOr<bool> done = handshake->Continue();
    while (true) {  // what it says, and the memory it offers
      const auto heard = ReceiveMemif(hostile.get());
      if (!heard.ok()) break;
      if (heard->type() == MemifMessageType::kAddRegion && heard->fd) {
        shared.Map(heard->fd.get(),
                   heard->body<MemifAddRegion>().size_bytes.get());
      }
    }
    if (!done.ok()) return 0;
    if (*done) {
      const auto channel = handshake->TakeChannel();
      UseChannel(script, *channel, shared);
      return 0;
    }
  }
  return 0;
}

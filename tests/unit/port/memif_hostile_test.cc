// SPDX-License-Identifier: BSD-3-Clause
// Peers of a memif that break its rules: on the socket, with their memory, in
// the rings.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nic/base/random.h"
#include "nic/port/memif_port.h"
#include "tests/unit/port/frames.h"
#include "tests/unit/port/memif_fixture.h"

namespace tripwire {
namespace {

using testing::ReceiveTexts;
using testing::SendText;

// --- Hostile peers ----------------------------------------------------------

class RawClient {
 public:
  explicit RawClient(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&address),
                      sizeof address),
              0);
  }
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
};

TEST_F(MemifTest, RandomBytesOnTheSocketHurtNobody) {
  Listen();
  auto client = Join();
  Random random(7);
  for (int i = 0; i < 2000; ++i) {
    RawClient raw(Options().path);
    std::vector<uint8_t> bytes(random.Chance(0.8) ? 128 : random.Below(300));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Next());
    if (bytes.size() > 1 && random.Chance(0.8)) {
      bytes[0] = static_cast<uint8_t>(random.Below(10));
      bytes[1] = 0;
    }
    // Some wait for HELLO, some do not.
    if (random.Chance(0.5)) listener_->Service(clock_.NowNs());
    send(raw.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    listener_->Service(clock_.NowNs());
  }
  listener_->Service(clock_.NowNs());
  SendText(*client, listener_->info().mac, "fine");
  EXPECT_EQ(Next(*listener_), "fine");
}

// Speaks the protocol rightly but for the one step under test.
class ScriptedClient {
 public:
  ScriptedClient(Port& listener, const std::string& path)
      : listener_(listener), raw_(path) {
    Step();
    MemifInit init{};
    init.version = kMemifVersion;
    SetMemifText(init.name, "tripwire");
    Send(MemifMessageType::kInit, init);
  }
  template <typename T>
  void Send(MemifMessageType type, const T& body, int fd = -1) {
    SendMemif(raw_.fd(), type, body, fd).IgnoreError();
    Step();
  }
  // Whether the listener let us go on.
  bool IsWelcome() {
    auto received = ReceiveMemif(raw_.fd());
    bool is_welcome = true;
    while (received.ok()) {
      if (received->type() == MemifMessageType::kDisconnect) is_welcome = false;
      received = ReceiveMemif(raw_.fd());
    }
    return is_welcome && absl::IsUnavailable(received.status());
  }
  void Step() { listener_.Service(0); }

 private:
  Port& listener_;
  RawClient raw_;
};

UniqueFd Memory(size_t size, bool is_sealed = true) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(size)), 0);
  if (is_sealed) fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK);
  return fd;
}

MemifAddRegion Region(uint64_t size, uint16_t index = 0) {
  MemifAddRegion region{};
  region.index = index;
  region.size_bytes = size;
  return region;
}

// Frames of a hostile peer may be shorter than a header.
void ReceiveTextsOrJunk(Port& port) {
  std::array<Frame, 32> frames;
  while (const size_t count = port.Receive(frames)) {
    port.Release(std::span(frames).first(count));
  }
}

TEST_F(MemifTest, BadRegionsAreRefused) {
  Listen();
  const auto type = MemifMessageType::kAddRegion;
  const std::string path = Options().path;
  UniqueFd good = Memory(1 << 16), loose = Memory(1 << 16, false);
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  struct Case {
    MemifAddRegion region;
    int fd;
    bool is_welcome;
  };
  const Case cases[] = {
      {Region(1 << 16), good.get(), true},
      {Region(1 << 16), -1, false},             // no memory
      {Region(1 << 17), good.get(), false},     // more than there is
      {Region(0), good.get(), false},           //
      {Region(UINT64_MAX), good.get(), false},  //
      {Region(1 << 16, 1), good.get(), false},  // not the next index
      {Region(1 << 16), loose.get(), false},    // could shrink
      {Region(1 << 16), null.get(), false},
  };
  for (const Case& test : cases) {
    ScriptedClient client(*listener_, path);
    client.Send(type, test.region, test.fd);
    EXPECT_EQ(client.IsWelcome(), test.is_welcome);
  }
}

TEST_F(MemifTest, BadRingsAreRefused) {
  Listen();
  UniqueFd memory = Memory(1 << 16), bell(eventfd(0, EFD_NONBLOCK));
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  auto ring = [](uint16_t region, uint32_t offset, uint8_t log2_size,
                 uint16_t index = 0) {
    MemifAddRing message{};
    message.flags = kMemifRingIsC2s;
    message.index = index;
    message.region = region;
    message.offset = offset;
    message.log2_ring_size = log2_size;
    return message;
  };
  struct Case {
    MemifAddRing ring;
    int fd;
    bool is_welcome;
  };
  const Case cases[] = {
      {ring(0, 0, 10), bell.get(), true},
      {ring(0, 0, 12), bell.get(), false},          // past the end
      {ring(0, 0, 200), bell.get(), false},         //
      {ring(0, 1 << 16, 4), bell.get(), false},     //
      {ring(0, 0xffffffc0, 4), bell.get(), false},  //
      {ring(0, 4, 4), bell.get(), false},           // misaligned
      {ring(1, 0, 4), bell.get(), false},           // no such region
      {ring(0, 0, 4, 1), bell.get(), false},        // second ring
      {ring(0, 0, 4), null.get(), false},           // writing could block
      {ring(0, 0, 4), -1, false},
  };
  for (const Case& test : cases) {
    ScriptedClient client(*listener_, Options().path);
    client.Send(MemifMessageType::kAddRegion, Region(1 << 16), memory.get());
    client.Send(MemifMessageType::kAddRing, test.ring, test.fd);
    EXPECT_EQ(client.IsWelcome(), test.is_welcome);
  }
}

// A member whose rings say anything at any time loses its own connection at
// worst: nothing outside the shared memory is read or written (which is for the
// sanitizers to notice), and the others go on.
TEST_F(MemifTest, ScribbledRingsHurtNobodyElse) {
  constexpr size_t kSize = 1 << 18;
  constexpr uint8_t kLog2Slots = 5;
  constexpr uint32_t kRingBytes = 128 + (16u << kLog2Slots);
  Listen();
  auto client = Join();
  Random random(3);
  int connections = 0;
  for (int round = 0; round < 300; ++round) {
    UniqueFd memory = Memory(kSize), bell(eventfd(0, EFD_NONBLOCK));
    void* mapped = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED,
                        memory.get(), 0);
    auto* bytes = static_cast<uint8_t*>(mapped);
    for (int ring = 0; ring < 2; ++ring) {
      const uint32_t cookie = kMemifCookie;
      memcpy(bytes + ring * kRingBytes, &cookie, sizeof cookie);
    }
    ScriptedClient hostile(*listener_, Options().path);
    hostile.Send(MemifMessageType::kAddRegion, Region(kSize), memory.get());
    for (int ring = 0; ring < 2; ++ring) {
      MemifAddRing message{};
      message.flags = ring == 0 ? kMemifRingIsC2s : 0;
      message.offset = static_cast<uint32_t>(ring) * kRingBytes;
      message.log2_ring_size = kLog2Slots;
      hostile.Send(MemifMessageType::kAddRing, message, bell.get());
    }
    hostile.Send(MemifMessageType::kConnect, MemifConnect{});
    connections += hostile.IsWelcome();
    for (int i = 0; i < 50; ++i) {
      // Mostly near the truth, as a careful attacker would be.
      auto* ring = reinterpret_cast<MemifRing*>(
          bytes + (random.Chance(0.5) ? kRingBytes : 0));
      auto* descriptors = reinterpret_cast<MemifDescriptor*>(ring + 1);
      MemifDescriptor& descriptor = descriptors[random.Below(1u << kLog2Slots)];
      descriptor.flags = static_cast<uint16_t>(random.Below(2));
      descriptor.region = random.Chance(0.9) ? 0 : random.Next32() & 0xffff;
      descriptor.offset = random.Chance(0.9)
                              ? static_cast<uint32_t>(random.Below(kSize + 99))
                              : random.Next32();
      descriptor.length_bytes = random.Chance(0.9)
                                    ? static_cast<uint32_t>(random.Below(5000))
                                    : random.Next32();
      ring->head = static_cast<uint16_t>(ring->head + random.Below(9));
      if (random.Chance(0.1)) ring->tail = random.Next32() & 0xffff;
      if (random.Chance(0.05)) ring->head = random.Next32() & 0xffff;
      ReceiveTextsOrJunk(*listener_);
      SendText(*listener_, MacAddress::Broadcast(), std::string(900, 'x'));
      listener_->Service(clock_.NowNs());
    }
    ReceiveTexts(*client);
    munmap(mapped, kSize);
  }
  EXPECT_EQ(connections, 300);
  SendText(*client, listener_->info().mac, "fine");
  EXPECT_EQ(Next(*listener_), "fine");
}

}  // namespace
}  // namespace tripwire

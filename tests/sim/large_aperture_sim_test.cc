// SPDX-License-Identifier: BSD-3-Clause
// Apertures beyond 4 GiB, and operations of every size from nothing on.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "absl/base/config.h"
#include "tests/sim/sim_pair.h"

namespace tripwire {
namespace {

constexpr uint64_t kGib = uint64_t{1} << 30;

// Address space without memory behind it until it is touched.
class Reserved {
 public:
  explicit Reserved(uint64_t bytes) : bytes_(bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    at_ = at == MAP_FAILED ? nullptr : static_cast<uint8_t*>(at);
  }
  // The same, all of it one small file over and over: a long write needs little
  // memory. REQUIRES: `bytes` is a multiple of `window`.
  Reserved(uint64_t bytes, uint64_t window) : Reserved(bytes) {
    const int fd = memfd_create("window", 0);
    if (at_ == nullptr || fd < 0 ||
        ftruncate(fd, static_cast<off_t>(window)) != 0) {
      ADD_FAILURE() << "no memory to map";
      return;
    }
    for (uint64_t at = 0; at < bytes; at += window) {
      EXPECT_NE(mmap(at_ + at, window, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_FIXED, fd, 0),
                MAP_FAILED);
    }
    close(fd);
  }
  ~Reserved() {
    if (at_ != nullptr) munmap(at_, bytes_);
  }
  Reserved(const Reserved&) = delete;
  uint8_t* data() { return at_; }
  std::span<uint8_t> span() { return {at_, bytes_}; }

 private:
  uint8_t* at_ = nullptr;
  uint64_t bytes_;
};

TEST(NicSim, AnApertureBeyondFourGib) {
  constexpr uint64_t kSize = 5 * kGib + 4096 + 8;
  Reserved memory(kSize);
  ASSERT_NE(memory.data(), nullptr);
  FaultOptions faults;
  faults.loss = 0.05;
  faults.reorder = 0.1;
  SimNetwork net(77, faults);
  Pair pair(net);
  pair.Connect();
  if (::testing::Test::HasFatalFailure()) return;
  Aperture aperture = pair.right->Export(memory.span(), Access::kAny);
  const RemoteAperture remote =
      pair.left->Import(pair.left_link, aperture.name());
  struct Place {
    uint64_t offset;
    uint64_t length;
  };
  const Place places[] = {{0, 8},
                          {4 * kGib - 4, 8},
                          {4 * kGib, 3000},
                          {kSize - 8, 8},
                          {kSize - 1, 1},
                          {kSize - 5000, 4999}};
  std::vector<Tripwire> last_byte;
  Tripwire whole = pair.right->Watch(aperture, 0, kSize, Access::kAny,
                                     TripwireMode::kPersistent);
  Tripwire end = pair.right->Watch(aperture, kSize - 1, 1, Access::kAny,
                                   TripwireMode::kPersistent);
  whole.Arm();
  end.Arm();
  uint64_t touched = 0, at_end = 0;
  for (const Place& place : places) {
    SCOPED_TRACE(place.offset);
    std::vector<uint8_t> data = RandomBytes(net.random(), place.length);
    std::vector<uint8_t> into(place.length);
    Completion write, read;
    ASSERT_TRUE(pair.left->Write(remote, place.offset, data, &write).ok());
    ASSERT_TRUE(pair.left->Read(remote, place.offset, into, &read).ok());
    ASSERT_TRUE(net.RunUntil([&] { return write.done() && read.done(); },
                             60 * kSecond));
    EXPECT_EQ(write.status.load(), OpStatus::kOk);
    EXPECT_EQ(read.status.load(), OpStatus::kOk);
    EXPECT_EQ(into, data);
    EXPECT_EQ(std::memcmp(memory.data() + place.offset, data.data(),
                          place.length),
              0);
    touched += 2;
    if (place.offset + place.length == kSize) at_end += 2;
    EXPECT_EQ(whole.count(), touched);
    EXPECT_EQ(end.count(), at_end);
  }
  uint64_t result = 1, before = 0;
  std::memcpy(&before, memory.data() + kSize - 8, 8);
  Completion atomic;
  ASSERT_TRUE(pair.left->FetchAdd(remote, kSize - 8, 1, &result, &atomic).ok());
  ASSERT_TRUE(net.RunUntil([&] { return atomic.done(); }, 60 * kSecond));
  EXPECT_EQ(result, before);
  EXPECT_EQ(end.count(), at_end + 1);
  // Beyond: refused here, and, if the name lies, there.
  EXPECT_FALSE(pair.left->Write(remote, kSize, std::vector<uint8_t>(1)).ok());
  RemoteAperture lying = remote;
  lying.name.length_bytes = kSize + 4096;
  const std::vector<uint8_t> word(8);
  for (const uint64_t offset : {kSize, kSize - 7, kSize + 1}) {
    Completion refused;
    ASSERT_TRUE(pair.left->Write(lying, offset, word, &refused).ok());
    ASSERT_TRUE(net.RunUntil([&] { return refused.done(); }, 60 * kSecond));
    EXPECT_EQ(refused.status.load(), OpStatus::kOutOfBounds);
  }
  EXPECT_EQ(whole.count(), touched + 1);
  whole.Remove();
  end.Remove();
}

// ThreadSanitizer would want four times as much memory of its own.
#if !defined(ABSL_HAVE_THREAD_SANITIZER)
TEST(NicSim, OneWriteOfMoreThanFourGib) {
  constexpr uint64_t kWindow = 4 << 20;
  constexpr uint64_t kSize = 4 * kGib + 2 * kWindow;
  Reserved source(kSize, kWindow), target(kSize, kWindow);
  ASSERT_NE(source.data(), nullptr);
  ASSERT_NE(target.data(), nullptr);
  for (uint64_t i = 0; i < kWindow; i += 8) {
    const uint64_t word = i * 0x9e3779b97f4a7c15;
    std::memcpy(source.data() + i, &word, 8);
  }
  SimNetwork net(78);
  NicOptions left, right;
  left.checksum = right.checksum = false;
  Pair pair(net, 65000, std::move(left), std::move(right));
  pair.Connect();
  if (::testing::Test::HasFatalFailure()) return;
  Aperture aperture = pair.right->Export(target.span(), Access::kWrite);
  const RemoteAperture remote =
      pair.left->Import(pair.left_link, aperture.name());
  Tripwire first = pair.right->Watch(aperture, 0, 8, Access::kWrite,
                                     TripwireMode::kPersistent);
  Tripwire last = pair.right->Watch(aperture, kSize - 8, 8, Access::kWrite,
                                    TripwireMode::kPersistent);
  first.Arm();
  last.Arm();
  Completion write;
  ASSERT_TRUE(pair.left->Write(remote, 0, source.span(), &write).ok());
  ASSERT_TRUE(net.RunUntil([&] { return write.done(); }, 600 * kSecond));
  EXPECT_EQ(write.status.load(), OpStatus::kOk);
  EXPECT_EQ(std::memcmp(source.data(), target.data(), kWindow), 0);
  EXPECT_EQ(first.count(), 1u);
  EXPECT_EQ(last.count(), 1u);
  EXPECT_EQ(pair.right_nic.counters().write_bytes, kSize);
  EXPECT_EQ(pair.right_nic.counters().writes, 1u);
  first.Remove();
  last.Remove();
}

#endif

TEST(NicSim, OperationsOnNothingAreCheckedAndEnd) {
  constexpr FaultOptions kFaults{.loss = 0.1};
  ForPairs(20, kFaults, [](Pair& pair) {
    SimNetwork& net = pair.net;
    std::vector<uint8_t> memory(4096);
    Aperture aperture = pair.right->Export(memory, Access::kAny);
    Aperture no_rights = pair.right->Export(memory, Access::kNone);
    const RemoteAperture remote =
        pair.left->Import(pair.left_link, aperture.name());
    const RemoteAperture shut =
        pair.left->Import(pair.left_link, no_rights.name());
    Tripwire in = pair.right->Watch(aperture, 0, 4096, Access::kAny,
                                    TripwireMode::kPersistent);
    Tripwire out = pair.left->Watch(remote, 0, 4096, Access::kAny,
                                    TripwireMode::kPersistent);
    in.Arm();
    out.Arm();
    Completion write, gather, read, scatter, refused_write, refused_read;
    ASSERT_TRUE(pair.left->Write(remote, 4096, {}, &write).ok());
    ASSERT_TRUE(pair.left->WriteGather(remote, 0, {}, &gather).ok());
    ASSERT_TRUE(pair.left->WriteGather(remote, 0, {}).ok());
    ASSERT_TRUE(pair.left->Read(remote, 4096, {}, &read).ok());
    ASSERT_TRUE(pair.left->ReadScatter(remote, 8, {}, &scatter).ok());
    ASSERT_TRUE(pair.left->Write(shut, 0, {}, &refused_write).ok());
    ASSERT_TRUE(pair.left->Read(shut, 0, {}, &refused_read).ok());
    ASSERT_TRUE(net.RunUntil(
        [&] {
          return write.done() && gather.done() && read.done() &&
                 scatter.done() && refused_write.done() && refused_read.done();
        },
        60 * kSecond));
    for (Completion* c : {&write, &gather, &read, &scatter}) {
      EXPECT_EQ(c->status.load(), OpStatus::kOk);
    }
    EXPECT_EQ(refused_write.status.load(), OpStatus::kNoRights);
    EXPECT_EQ(refused_read.status.load(), OpStatus::kNoRights);
    EXPECT_EQ(in.count(), 0u);
    EXPECT_EQ(out.count(), 0u);
    in.Remove();
    out.Remove();
  });
}

}  // namespace
}  // namespace tripwire

// SPDX-License-Identifier: BSD-3-Clause
// The DPDK ports on real kernel interfaces: a veth pair in a network namespace
// made for the test, which needs root. As any user: the vdev ports, and what is
// said when there is no permission.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <set>
#include <thread>

#include "nic/base/fd.h"
#include "nic/port/interface_address.h"
#include "nic/port/port_spec.h"
#include "tests/unit/port/frames.h"

namespace tripwire {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ReceiveTexts;
using testing::SendText;

// A namespace of its own for this whole process, with tw0 and tw1 joined.
bool MakeVeth(int mtu = 1500) {
  static const bool is_alone = geteuid() == 0 && unshare(CLONE_NEWNET) == 0;
  if (!is_alone) return false;
  static bool is_first = true;
  if (!std::exchange(is_first, false)) (void)!system("ip link del tw0");
  const std::string m = std::to_string(mtu);
  // No kernel chatter: IPv6 would announce itself on the new interfaces.
  const std::string command =
      "sysctl -qw net.ipv6.conf.default.disable_ipv6=1; ip link add tw0 mtu " +
      m + " type veth peer name tw1 mtu " + m +
      " && ip link set tw0 up && ip link set tw1 up";
  return system(command.c_str()) == 0;
}

std::unique_ptr<Port> OpenOrFail(const std::string& spec) {
  auto port = OpenPort(spec);
  EXPECT_TRUE(port.ok()) << port.status();
  return port.ok() ? *std::move(port) : nullptr;
}

bool Readable(const Port& port, int timeout_ms) {
  pollfd waiting{port.wake_fd(), POLLIN, 0};
  return poll(&waiting, 1, timeout_ms) == 1;
}

// All frames that come within a second, until there are `count`.
std::vector<std::string> ReceiveSome(Port& port, size_t count) {
  std::vector<std::string> texts;
  for (int i = 0; i < 1000 && texts.size() < count; ++i) {
    for (auto& text : ReceiveTexts(port)) texts.push_back(text);
    if (texts.size() < count) usleep(1000);
  }
  return texts;
}

class VethTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!MakeVeth()) GTEST_SKIP() << "needs root, to make interfaces";
    a_ = OpenOrFail(std::string(GetParam()) + ":tw0");
    b_ = OpenOrFail(std::string(GetParam()) + ":tw1");
    ASSERT_TRUE(a_ != nullptr && b_ != nullptr);
  }
  std::unique_ptr<Port> a_, b_;
};

TEST_P(VethTest, FramesPassBothWays) {
  EXPECT_EQ(a_->info().max_frame_bytes, 1514u);
  EXPECT_FALSE(a_->info().is_reliable);
  SendText(*a_, b_->info().mac, "there");
  EXPECT_THAT(ReceiveSome(*b_, 1), ElementsAre(HasSubstr("there")));
  SendText(*b_, MacAddress::Broadcast(), "and back");
  EXPECT_THAT(ReceiveSome(*a_, 1), ElementsAre(HasSubstr("and back")));
  SendText(*a_, b_->info().mac, std::string(1500, 'x'));
  EXPECT_THAT(ReceiveSome(*b_, 1), ElementsAre(std::string(1500, 'x')));
  EXPECT_GE(a_->counters().tx_frames, 2u);
}

TEST_P(VethTest, ManyFramesArriveInOrder) {
  for (int i = 0; i < 5000; ++i) {
    ASSERT_TRUE(SendText(*a_, b_->info().mac, std::string(100, 'a' + i % 26)));
    if (i % 32 != 31) continue;
    auto texts = ReceiveSome(*b_, 32);
    ASSERT_EQ(texts.size(), 32u) << i;
    for (int j = 0; j < 32; ++j) {
      ASSERT_EQ(texts[j], std::string(100, 'a' + (i - 31 + j) % 26));
    }
  }
}

TEST_P(VethTest, ASleeperIsWokenByAFrameAndByNothingElse) {
  ASSERT_GE(b_->wake_fd(), 0);
  b_->Service(0);
  ReceiveTexts(*b_);
  ASSERT_TRUE(b_->ArmWakeup());
  EXPECT_FALSE(Readable(*b_, 100));
  SendText(*a_, b_->info().mac, "wake up");
  EXPECT_TRUE(Readable(*b_, 1000));
  b_->DisarmWakeup();
  EXPECT_FALSE(b_->ArmWakeup());  // it waits
  EXPECT_THAT(ReceiveSome(*b_, 1), ElementsAre(HasSubstr("wake up")));
  EXPECT_TRUE(b_->ArmWakeup());
  EXPECT_FALSE(Readable(*b_, 50));
}

// One lost wake-up, and both sleep until the timeout.
TEST_P(VethTest, NoWakeUpIsLost) {
  constexpr int kRounds = 10'000;
  auto wait_for_frame = [](Port& port) {
    Frame frame;
    while (port.Receive({&frame, 1}) == 0) {
      if (!port.ArmWakeup()) continue;
      const bool is_awake = Readable(port, 5000);
      port.DisarmWakeup();
      if (!is_awake) return false;
      port.Service(0);
    }
    port.Release({&frame, 1});
    return true;
  };
  int answered = 0;
  std::thread other([&] {
    for (; answered < kRounds && wait_for_frame(*b_); ++answered) {
      SendText(*b_, a_->info().mac, "pong");
    }
  });
  int rounds = 0;
  for (; rounds < kRounds; ++rounds) {
    SendText(*a_, b_->info().mac, "ping");
    if (!wait_for_frame(*a_)) break;
  }
  other.join();
  EXPECT_EQ(rounds, kRounds);
  EXPECT_EQ(answered, kRounds);
}

TEST_P(VethTest, TheInterfaceIsFreeAgainAfterwards) {
  a_.reset();
  b_.reset();
  auto again = OpenPort(std::string(GetParam()) + ":tw0");
  EXPECT_TRUE(again.ok()) << again.status();
}

INSTANTIATE_TEST_SUITE_P(Kernel, VethTest, ::testing::Values("eth", "xdp"),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

TEST(EthPortTest, JumboFramesPass) {
  if (!MakeVeth(9000)) GTEST_SKIP() << "needs root, to make interfaces";
  auto a = OpenOrFail("eth:tw0");
  auto b = OpenOrFail("eth:tw1,mtu=4000");
  ASSERT_TRUE(a != nullptr && b != nullptr);
  EXPECT_EQ(a->info().max_frame_bytes, 9014u);
  EXPECT_EQ(b->info().max_frame_bytes, 4014u);
  const std::string text(9000, 'j');
  SendText(*a, b->info().mac, text);
  EXPECT_THAT(ReceiveSome(*b, 1), ElementsAre(text));
}

// Each has an address of its own, and its frames.
TEST(EthPortTest, ProgramsShareAnInterface) {
  if (!MakeVeth()) GTEST_SKIP() << "needs root, to make interfaces";
  auto interface = FindNetInterface("tw1");
  ASSERT_TRUE(interface.ok()) << interface.status();
  auto others = InterfaceAddress::Claim(*interface);  // as another program
  ASSERT_TRUE(others.ok()) << others.status();
  EXPECT_EQ((*others)->mac(), interface->mac);
  auto far = OpenOrFail("eth:tw0");
  auto ours = OpenOrFail("eth:tw1");
  ASSERT_TRUE(far && ours);
  const MacAddress mac = ours->info().mac;
  EXPECT_NE(mac, interface->mac);
  SendText(*far, interface->mac, "to the other");
  SendText(*far, mac, "to us");
  SendText(*far, MacAddress::Broadcast(), "to all");
  SendText(*ours, far->info().mac, "from us");
  EXPECT_THAT(ReceiveSome(*ours, 2), ElementsAre("to us", "to all"));
  EXPECT_THAT(ReceiveSome(*far, 1), ElementsAre("from us"));
  // Who is started again has the same address, while the other is there.
  ours.reset();
  ours = OpenOrFail("eth:tw1");
  ASSERT_NE(ours, nullptr);
  EXPECT_EQ(ours->info().mac, mac);
  ours.reset();
  others->reset();
  ours = OpenOrFail("eth:tw1");
  ASSERT_NE(ours, nullptr);
  EXPECT_EQ(ours->info().mac, interface->mac);
}

TEST(EthPortTest, AnInterfaceHasRoomForSixtyFourPrograms) {
  if (!MakeVeth()) GTEST_SKIP() << "needs root, to make interfaces";
  auto interface = FindNetInterface("tw1");
  ASSERT_TRUE(interface.ok()) << interface.status();
  std::set<MacAddress> seen;
  std::vector<std::shared_ptr<const InterfaceAddress>> held;
  for (;;) {
    auto address = InterfaceAddress::Claim(*interface);
    if (!address.ok()) {
      EXPECT_THAT(address.status().message(), HasSubstr("programs already"));
      break;
    }
    EXPECT_EQ((*address)->mac().bytes[0] & 1, 0);
    EXPECT_TRUE(seen.insert((*address)->mac()).second);
    held.push_back(*address);
    ASSERT_LE(held.size(), 64u);
  }
  EXPECT_GE(held.size(), 63u);  // one number may make the interface's own
}

// What is not ours reaches the kernel but neither fills the port nor wakes it.
TEST(EthPortTest, OtherTrafficDoesNotDisturb) {
  if (!MakeVeth()) GTEST_SKIP() << "needs root, to make interfaces";
  auto b = OpenOrFail("eth:tw1");
  ASSERT_NE(b, nullptr);
  UniqueFd raw(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = static_cast<int>(if_nametoindex("tw0"));
  uint8_t frame[100] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  frame[12] = 0x08;  // IPv4
  ASSERT_TRUE(b->ArmWakeup());
  for (int i = 0; i < 10'000; ++i) {
    sendto(raw.get(), frame, sizeof frame, 0,
           reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  EXPECT_FALSE(Readable(*b, 50));
  frame[12] = 0x88;
  frame[13] = 0xb5;
  sendto(raw.get(), frame, sizeof frame, 0,
         reinterpret_cast<sockaddr*>(&address), sizeof address);
  EXPECT_TRUE(Readable(*b, 1000));
  EXPECT_EQ(ReceiveSome(*b, 1).size(), 1u);
}

TEST(EthPortTest, AnInterfaceThatGoesDownDoesNotKeepUsAwake) {
  if (!MakeVeth()) GTEST_SKIP() << "needs root, to make interfaces";
  auto b = OpenOrFail("eth:tw1");
  ASSERT_NE(b, nullptr);
  ASSERT_EQ(system("ip link set tw1 down"), 0);
  usleep(10'000);
  b->Service(0);
  EXPECT_FALSE(Readable(*b, 50));
  ASSERT_EQ(system("ip link set tw1 up && ip link set tw0 up"), 0);
  auto a = OpenOrFail("eth:tw0");
  ASSERT_NE(a, nullptr);
  std::vector<std::string> texts;
  for (int i = 0; i < 50 && texts.empty(); ++i) {
    SendText(*a, b->info().mac, "up again");
    texts = ReceiveTexts(*b);
    usleep(20'000);
  }
  EXPECT_THAT(texts, Not(IsEmpty()));
}

// Below the interface a wire that takes minutes for each frame: what we sent
// stays with the kernel.
TEST(EthPortTest, AWireThatIsStuckDoesNotStopTheSender) {
  if (!MakeVeth()) GTEST_SKIP() << "needs root, to make interfaces";
  ASSERT_EQ(system("tc qdisc add dev tw0 root tbf rate 100bit burst 2000 "
                   "limit 100000000 && "
                   "ip link add link tw0 name above0 type macvlan mode bridge "
                   "&& ip link set above0 up"),
            0);
  auto port = OpenOrFail("eth:above0");
  ASSERT_NE(port, nullptr);
  auto sent = std::async(std::launch::async, [&] {
    const std::string text(1400, 's');
    size_t taken = 0;
    for (int i = 0; i < 20'000; ++i) {
      taken += SendText(*port, MacAddress::Broadcast(), text);
    }
    return taken;
  });
  // For ever, if it waits for the wire; without the wire it ends.
  const bool ended =
      sent.wait_for(std::chrono::seconds(60)) == std::future_status::ready;
  EXPECT_EQ(system("tc qdisc del dev tw0 root"), 0);
  EXPECT_TRUE(ended) << "the sender waits for the wire";
  const size_t taken = sent.get();
  EXPECT_GT(taken, 0u);
  EXPECT_LT(taken, 20'000u) << "the wire was not stuck";
}

TEST(EthPortTest, ErrorsSayWhatToDo) {
  for (const char* kind : {"eth:", "xdp:"}) {
    auto port = OpenPort(std::string(kind) + "nosuchif0");
    EXPECT_THAT(std::string(port.status().message()),
                HasSubstr("no network interface 'nosuchif0'"));
    port = OpenPort(std::string(kind) + "averyveryverylongname");
    EXPECT_THAT(std::string(port.status().message()), HasSubstr("too long"));
  }
  if (!MakeVeth(9000)) GTEST_SKIP() << "needs root, to make interfaces";
  EXPECT_THAT(std::string(OpenPort("xdp:tw0").status().message()),
              HasSubstr("MTU"));
  EXPECT_THAT(std::string(OpenPort("eth:tw0,mtu=9500").status().message()),
              HasSubstr("MTU"));
  ASSERT_EQ(system("ip link set tw0 down"), 0);
  EXPECT_THAT(std::string(OpenPort("eth:tw0").status().message()),
              HasSubstr("ip link set tw0 up"));
  ASSERT_EQ(system("ip link set tw0 up"), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (setuid(65534) != 0) _exit(1);
    const auto port = OpenPort("eth:tw0");
    const std::string why(port.status().message());
    _exit(why.find("CAP_NET_RAW") == std::string::npos ? 2 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(VdevPortTest, ARingIsALoop) {
  for (int i = 0; i < 2; ++i) {  // also: it can be opened again
    auto port = OpenOrFail("vdev:net_ring0");
    ASSERT_NE(port, nullptr);
    EXPECT_EQ(port->wake_fd(), -1);
    SendText(*port, MacAddress::Broadcast(), "echo");
    EXPECT_THAT(ReceiveSome(*port, 1), ElementsAre("echo"));
  }
}

TEST(VdevPortTest, NonsenseIsRefusedInOneLine) {
  for (const char* spec : {"vdev:net_nonsense0", "vdev:net_pcap0,bad=1",
                           "pci:ff:1f.7", "pci:nonsense"}) {
    auto port = OpenPort(spec);
    ASSERT_FALSE(port.ok()) << spec;
    const std::string why(port.status().message());
    EXPECT_EQ(why.find('\n'), std::string::npos) << why;
  }
}

TEST(VdevPortTest, HeldFramesAreGivenBackAndBuffersDoNotLeak) {
  auto port = OpenOrFail("vdev:net_ring1");
  ASSERT_NE(port, nullptr);
  std::vector<Frame> frames(20'000);
  const size_t all = port->Allocate(frames);
  EXPECT_LT(all, frames.size());
  port->Release({frames.data(), all});
  EXPECT_EQ(port->Allocate(frames), all);
  port->Release({frames.data(), all});
}

// The memif port speaks the standard protocol: DPDK's own driver can join.
TEST(InteropTest, DpdksMemifJoinsOurListener) {
  const std::string path = "/tmp/tripwire-interop-" + std::to_string(getpid());
  auto ours = OpenOrFail("memif:" + path + ",listen");
  ASSERT_NE(ours, nullptr);
  auto theirs = OpenOrFail(
      "vdev:net_memif0,role=client,socket-abstract=no,"
      "bsize=2048,rsize=10,socket=" +
      path);
  ASSERT_NE(theirs, nullptr);
  std::vector<std::string> texts;
  for (int i = 0; i < 500 && texts.empty(); ++i) {
    ours->Service(0);
    SendText(*theirs, MacAddress::Broadcast(), "from DPDK");
    texts = ReceiveTexts(*ours);
    usleep(2000);
  }
  ASSERT_THAT(texts, Not(IsEmpty()));
  EXPECT_EQ(texts[0], "from DPDK");
  ReceiveTexts(*theirs);  // offers its buffers
  SendText(*ours, MacAddress::Broadcast(), "to DPDK");
  SendText(*ours, MacAddress::Broadcast(), std::string(1400, 'x'));
  EXPECT_THAT(ReceiveSome(*theirs, 2),
              ElementsAre("to DPDK", std::string(1400, 'x')));
}

TEST(InteropTest, WeJoinDpdksMemif) {
  const std::string path = "/tmp/tripwire-interop2-" + std::to_string(getpid());
  auto theirs = OpenOrFail(
      "vdev:net_memif1,role=server,socket-abstract=no,"
      "bsize=2048,rsize=10,socket=" +
      path);
  ASSERT_NE(theirs, nullptr);
  auto ours = OpenOrFail("memif:" + path);
  ASSERT_NE(ours, nullptr);
  SendText(*ours, MacAddress::Broadcast(), "hello");
  EXPECT_THAT(ReceiveSome(*theirs, 1), ElementsAre("hello"));
  SendText(*theirs, MacAddress::Broadcast(), "answer");
  EXPECT_THAT(ReceiveSome(*ours, 1), ElementsAre("answer"));
  // Not closed: DPDK's driver does that while a thread of its own still serves the
  // control socket, and now and then crashes. We leave first; nobody polls it then.
  [[maybe_unused]] static Port* const kept = theirs.release();
}

}  // namespace
}  // namespace tripwire

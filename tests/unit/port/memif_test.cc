// SPDX-License-Identifier: BSD-3-Clause
// The memif ports, both ends in this process or the other end in a child.
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

#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "nic/base/random.h"
#include "nic/port/faulty_port.h"
#include "nic/port/memif_port.h"
#include "tests/unit/port/frames.h"

namespace tripwire {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ReceiveTexts;
using testing::SendText;
using ::testing::SizeIs;
using testing::TextOf;
using ::testing::UnorderedElementsAre;

class MemifTest : public ::testing::Test {
 protected:
  MemifTest() {
    char name[] = "/tmp/tripwire-memif-XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~MemifTest() override {
    listener_.reset();
    std::filesystem::remove_all(directory_);
  }

  MemifOptions Options() const {
    MemifOptions options;
    options.name = "test";
    options.path = directory_ + "/s";
    options.max_frame_bytes = 4096;
    options.buffers = 2048;
    return options;
  }
  void Listen() {
    auto port = MemifListenerPort::Open(Options());
    ASSERT_TRUE(port.ok()) << port.status();
    listener_ = *std::move(port);
  }
  // Opens a client while the listener is being served.
  std::unique_ptr<Port> Join(MemifOptions options) {
    absl::StatusOr<std::unique_ptr<Port>> port;
    bool is_done = false;
    std::thread thread([&] {
      port = MemifClientPort::Open(options);
      __atomic_store_n(&is_done, true, __ATOMIC_RELEASE);
    });
    while (!__atomic_load_n(&is_done, __ATOMIC_ACQUIRE)) {
      if (listener_ != nullptr) listener_->Service(clock_.NowNs());
      usleep(100);
    }
    thread.join();
    EXPECT_TRUE(port.ok()) << port.status();
    return port.ok() ? *std::move(port) : nullptr;
  }
  std::unique_ptr<Port> Join() { return Join(Options()); }

  // A child that does not outlive the test, whatever happens.
  static pid_t Fork() {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      alarm(60);
    }
    return child;
  }

  // Serves both until `condition`; false after ten seconds.
  bool Until(const std::function<bool()>& condition, Port* other = nullptr) {
    const uint64_t deadline_ns = clock_.NowNs() + 10 * kSecond;
    while (!condition()) {
      if (clock_.NowNs() > deadline_ns) return false;
      if (listener_ != nullptr) listener_->Service(clock_.NowNs());
      if (other != nullptr) other->Service(clock_.NowNs());
      usleep(200);
    }
    return true;
  }
  // The next frame at a port, whose path is noted; "" after ten seconds.
  std::string Next(Port& port, PathId* path = nullptr) {
    std::string text;
    Until(
        [&] {
          Frame frame;
          if (port.Receive({&frame, 1}) == 0) return false;
          text = TextOf(frame);
          if (path != nullptr) *path = frame.path;
          port.Release({&frame, 1});
          return true;
        },
        &port);
    return text;
  }

  SystemClock clock_;
  std::string directory_;
  std::unique_ptr<Port> listener_;
};

TEST_F(MemifTest, FramesPassBothWaysAndThePathLeadsBack) {
  Listen();
  auto client = Join();
  EXPECT_TRUE(client->info().is_reliable);
  EXPECT_NE(client->info().mac, listener_->info().mac);
  ASSERT_TRUE(SendText(*client, listener_->info().mac, "ping"));
  PathId path = kAllPaths;
  EXPECT_EQ(Next(*listener_, &path), "ping");
  ASSERT_TRUE(SendText(*listener_, client->info().mac, "pong", path));
  EXPECT_EQ(Next(*client, &path), "pong");
  EXPECT_EQ(path, 0u);
}

TEST_F(MemifTest, ManyClientsJoinWithoutFurtherSetUp) {
  Listen();
  std::vector<std::unique_ptr<Port>> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(Join());
  std::map<std::string, PathId> path_of;
  for (int i = 0; i < 100; ++i) {
    SendText(*clients[i], listener_->info().mac, std::to_string(i));
    PathId path = 0;
    const std::string text = Next(*listener_, &path);
    path_of[text] = path;
  }
  EXPECT_THAT(path_of, SizeIs(100));
  for (int i = 0; i < 100; ++i) {
    const std::string text = std::to_string(i);
    SendText(*listener_, clients[i]->info().mac, "to " + text, path_of[text]);
  }
  SendText(*listener_, MacAddress::Broadcast(), "all");
  for (int i = 0; i < 100; ++i) {
    EXPECT_THAT(ReceiveTexts(*clients[i]),
                ElementsAre("to " + std::to_string(i), "all"));
  }
}

TEST_F(MemifTest, FramesOfEverySizePassUnharmed) {
  Listen();
  auto client = Join();
  Random random(1);
  for (uint32_t size : {0u, 1u, 46u, 50u, 63u, 64u, 1500u, 4000u, 4082u}) {
    std::string text(size, 0);
    for (char& c : text) c = static_cast<char>(random.Next());
    ASSERT_TRUE(SendText(*client, listener_->info().mac, text));
    EXPECT_EQ(Next(*listener_), text);
    ASSERT_TRUE(SendText(*listener_, client->info().mac, text));
    EXPECT_EQ(Next(*client), text);
  }
}

// The client decides how large the buffers are; longer frames take several.
TEST_F(MemifTest, LongFramesPassThroughSmallBuffers) {
  Listen();
  MemifOptions options = Options();
  options.max_frame_bytes = 300;
  auto client = Join(options);
  SendText(*client, listener_->info().mac, "here");
  PathId path = 0;
  Next(*listener_, &path);
  SendText(*listener_, client->info().mac, std::string(3000, 'x'), path);
  SendText(*listener_, client->info().mac, "fits", path);
  // It cannot take the long one, and loses nothing else over it.
  EXPECT_EQ(Next(*client), "fits");
}

TEST_F(MemifTest, AFullRingAcceptsAPrefixAndDeliversInOrder) {
  Listen();
  auto client = Join();
  int sent = 0;
  while (SendText(*client, listener_->info().mac, std::to_string(sent), 0)) {
    ++sent;
  }
  EXPECT_GE(sent, 1024);
  auto texts = ReceiveTexts(*listener_);
  ASSERT_THAT(texts, SizeIs(sent));
  for (int i = 0; i < sent; ++i) EXPECT_EQ(texts[i], std::to_string(i));
  EXPECT_TRUE(SendText(*client, listener_->info().mac, "room again", 0));
}

TEST_F(MemifTest, AStalledMemberAffectsNoOther) {
  Listen();
  auto stalled = Join();
  auto lively = Join();
  SendText(*lively, listener_->info().mac, "here");
  PathId path = 0;
  ASSERT_EQ(Next(*listener_, &path), "here");
  for (int i = 0; i < 3000; ++i) {
    ASSERT_TRUE(SendText(*listener_, MacAddress::Broadcast(), "all"));
    ASSERT_TRUE(SendText(*listener_, lively->info().mac, "one", path));
    ASSERT_THAT(ReceiveTexts(*lively), ElementsAre("all", "one"));
  }
  EXPECT_GE(ReceiveTexts(*stalled).size(), 1024u);
}

TEST_F(MemifTest, HeldFramesStayValidAfterTheirSenderIsGone) {
  Listen();
  auto client = Join();
  SendText(*client, listener_->info().mac, "keep");
  Frame held;
  ASSERT_TRUE(Until([&] { return listener_->Receive({&held, 1}) == 1; }));
  client.reset();
  ASSERT_TRUE(Until([&] {
    return SendText(*listener_, MacAddress::Broadcast(), "x", held.path) &&
           listener_->counters().tx_dropped > 0;
  }));
  EXPECT_EQ(TextOf(held), "keep");
  listener_->Release({&held, 1});
}

TEST_F(MemifTest, FramesAreLentInPlaceAndHoldUpOnlyTheirOwnSender) {
  Listen();
  auto patient = Join();
  auto other = Join();
  ASSERT_TRUE(SendText(*patient, listener_->info().mac, "lent"));
  Frame lent;
  ASSERT_TRUE(Until([&] { return listener_->Receive({&lent, 1}) == 1; }));
  EXPECT_TRUE(lent.is_borrowed);
  // While it is lent the ring does not empty, however much is taken from it.
  int sent = 0;
  while (SendText(*patient, listener_->info().mac, "more", 0)) ++sent;
  Frame frame;
  std::vector<Frame> taken;
  while (listener_->Receive({&frame, 1}) == 1) taken.push_back(frame);
  EXPECT_EQ(taken.size(), static_cast<size_t>(sent));
  EXPECT_FALSE(SendText(*patient, listener_->info().mac, "still full", 0));
  ASSERT_TRUE(SendText(*other, listener_->info().mac, "free"));
  EXPECT_EQ(TextOf(lent), "lent");
  listener_->Release(taken);
  EXPECT_FALSE(SendText(*patient, listener_->info().mac, "still full", 0));
  listener_->Release({&lent, 1});
  EXPECT_TRUE(SendText(*patient, listener_->info().mac, "room", 0));
  EXPECT_THAT(ReceiveTexts(*listener_), UnorderedElementsAre("free", "room"));
}

TEST_F(MemifTest, FramesOfEverySizeAreGatheredFromTwoPlaces) {
  Listen();
  auto client = Join();
  EXPECT_TRUE(client->info().gathers);
  const uint32_t longest = client->info().max_frame_bytes;
  Random random(5);
  std::vector<uint8_t> rest(longest);
  for (uint8_t& byte : rest) byte = static_cast<uint8_t>(random.Next());
  for (uint32_t tail : {1u, 255u, 256u, 511u, 2048u, longest - 52, longest}) {
    Frame frame;
    ASSERT_EQ(client->Allocate({&frame, 1}), 1u);
    std::memset(frame.data, 0xff, 52);
    frame.length_bytes = 52;
    frame.tail = rest.data();
    frame.tail_bytes = tail;
    ASSERT_EQ(client->Transmit(0, {&frame, 1}), 1u);
    Frame got;
    if (tail == longest) {  // together too long for any wire
      EXPECT_EQ(listener_->Receive({&got, 1}), 0u);
      EXPECT_EQ(client->counters().tx_dropped, 1u);
      continue;
    }
    ASSERT_EQ(listener_->Receive({&got, 1}), 1u) << tail;
    ASSERT_EQ(got.length_bytes, 52 + tail);
    EXPECT_EQ(std::memcmp(got.data + 52, rest.data(), tail), 0) << tail;
    listener_->Release({&got, 1});
  }
}

TEST_F(MemifTest, AnOldPathDoesNotLeadToANewMember) {
  Listen();
  auto first = Join();
  SendText(*first, listener_->info().mac, "first");
  PathId old_path = 0;
  Next(*listener_, &old_path);
  first.reset();
  auto second = Join();
  SendText(*second, listener_->info().mac, "second");
  PathId new_path = 0;
  Next(*listener_, &new_path);
  EXPECT_NE(old_path, new_path);
  EXPECT_TRUE(SendText(*listener_, second->info().mac, "stray", old_path));
  EXPECT_TRUE(SendText(*listener_, second->info().mac, "right", new_path));
  EXPECT_EQ(Next(*second), "right");
}

TEST_F(MemifTest, AClientJoinsAgainWhenTheListenerRestarts) {
  Listen();
  auto client = Join();
  listener_.reset();
  // Meanwhile the cable is out: frames go nowhere, and nothing blocks.
  EXPECT_TRUE(Until(
      [&] {
        return SendText(*client, MacAddress::Broadcast(), "lost") &&
               client->counters().tx_dropped > 0;
      },
      client.get()));
  Listen();
  EXPECT_TRUE(Until(
      [&] {
        SendText(*client, MacAddress::Broadcast(), "back");
        return ReceiveTexts(*listener_).size() > 0;
      },
      client.get()));
  SendText(*listener_, client->info().mac, "welcome");
  EXPECT_EQ(Next(*client), "welcome");
}

TEST_F(MemifTest, AKilledListenerIsReplacedAtOnce) {
  const pid_t child = Fork();
  if (child == 0) {
    auto port = MemifListenerPort::Open(Options());
    while (port.ok()) {
      (*port)->Service(clock_.NowNs());
      usleep(1000);
    }
    _exit(1);
  }
  const MemifOptions options = Options();
  ASSERT_TRUE(Until([&] { return std::filesystem::exists(options.path); }));
  auto client = Join();
  ASSERT_NE(client, nullptr);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(std::filesystem::exists(options.path));
  Listen();
  EXPECT_TRUE(Until(
      [&] {
        SendText(*client, MacAddress::Broadcast(), "back");
        return ReceiveTexts(*listener_).size() > 0;
      },
      client.get()));
}

TEST_F(MemifTest, KilledClientsLeaveTheOthersAlone) {
  Listen();
  auto survivor = Join();
  for (int round = 0; round < 20; ++round) {
    const pid_t child = Fork();
    if (child == 0) {
      auto port = MemifClientPort::Open(Options());
      while (port.ok()) SendText(**port, MacAddress::Broadcast(), "noise");
      _exit(1);
    }
    // Kill it in the middle of sending.
    ASSERT_TRUE(Until([&] {
      auto texts = ReceiveTexts(*listener_);
      return std::count(texts.begin(), texts.end(), "noise") > 0;
    }));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    SendText(*survivor, listener_->info().mac, "still here");
    ASSERT_TRUE(Until([&] {
      auto texts = ReceiveTexts(*listener_);
      return std::count(texts.begin(), texts.end(), "still here") > 0;
    }));
  }
}

TEST_F(MemifTest, ErrorsSayWhatToDo) {
  auto none = MemifClientPort::Open(Options());
  EXPECT_THAT(none.status().message(), HasSubstr("nothing listens on"));
  Listen();
  auto second = MemifListenerPort::Open(Options());
  EXPECT_THAT(second.status().message(), HasSubstr("in use"));
  MemifOptions options = Options();
  options.path = directory_ + "/" + std::string(200, 'x');
  EXPECT_THAT(MemifListenerPort::Open(options).status().message(),
              HasSubstr("107"));
  EXPECT_THAT(MemifClientPort::Open(options).status().message(),
              HasSubstr("107"));
  options.path = directory_ + "/none/s";
  EXPECT_THAT(MemifListenerPort::Open(options).status().message(),
              HasSubstr("does not exist"));
  options.path = directory_ + "/file";
  fclose(fopen(options.path.c_str(), "w"));
  EXPECT_THAT(MemifListenerPort::Open(options).status().message(),
              HasSubstr("not a socket"));
  EXPECT_TRUE(std::filesystem::exists(options.path));
}

TEST_F(MemifTest, TheSocketIsRemovedByItsOwnerOnly) {
  Listen();
  const std::string path = Options().path;
  EXPECT_TRUE(std::filesystem::exists(path));
  // Somebody removed and replaced it: not ours any more.
  std::filesystem::rename(path, path + ".old");
  auto old = std::move(listener_);
  Listen();
  old.reset();
  EXPECT_TRUE(std::filesystem::exists(path));
  listener_.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(MemifTest, WaitOpensBeforeTheListenerIsThere) {
  MemifOptions options = Options();
  options.wait = true;
  auto client = MemifClientPort::Open(options);
  ASSERT_TRUE(client.ok()) << client.status();
  Listen();
  EXPECT_TRUE(Until(
      [&] {
        SendText(**client, MacAddress::Broadcast(), "hello");
        return ReceiveTexts(*listener_).size() > 0;
      },
      client->get()));
}

// --- Sleeping ---------------------------------------------------------------

bool Readable(const Port& port, int timeout_ms) {
  pollfd waiting{port.wake_fd(), POLLIN, 0};
  return poll(&waiting, 1, timeout_ms) == 1;
}

TEST_F(MemifTest, ADoorbellIsRungOnceAndOnlyForASleeper) {
  Listen();
  auto client = Join();
  Until([&] { return !Readable(*listener_, 0); });
  SendText(*client, listener_->info().mac, "polled");
  EXPECT_FALSE(Readable(*listener_, 0));
  EXPECT_EQ(client->counters().doorbells_rung, 0u);
  EXPECT_FALSE(listener_->ArmWakeup());  // the frame is there already
  EXPECT_THAT(ReceiveTexts(*listener_), ElementsAre("polled"));

  ASSERT_TRUE(listener_->ArmWakeup());
  SendText(*client, listener_->info().mac, "one");
  SendText(*client, listener_->info().mac, "two");
  EXPECT_EQ(client->counters().doorbells_rung, 1u);
  EXPECT_TRUE(Readable(*listener_, 1000));
  listener_->DisarmWakeup();
  listener_->Service(clock_.NowNs());
  EXPECT_EQ(listener_->counters().wakeups, 1u);
  EXPECT_FALSE(Readable(*listener_, 0));
  EXPECT_THAT(ReceiveTexts(*listener_), ElementsAre("one", "two"));
}

TEST_F(MemifTest, QuietFramesWakeNobodyUnlessTheRingIsFull) {
  Listen();
  auto client = Join();
  Until([&] { return !Readable(*listener_, 0); });
  ASSERT_TRUE(listener_->ArmWakeup());
  auto send_quietly = [&] {
    Frame frame;
    EXPECT_EQ(client->Allocate({&frame, 1}), 1u);
    memset(frame.data, 0xff, 60);
    frame.length_bytes = 60;
    if (client->Transmit(0, {&frame, 1}, Ring::kQuietly) == 1) return true;
    client->Release({&frame, 1});
    return false;
  };
  EXPECT_TRUE(send_quietly());
  EXPECT_FALSE(Readable(*listener_, 0));
  while (send_quietly()) {
  }
  EXPECT_TRUE(Readable(*listener_, 1000));
}

void Spin(int turns) {
  for (int i = 0; i < turns; ++i) asm volatile("");
}

// Two processes, each asleep until the other has sent: one lost wake-up and
// they sleep for ever.
TEST_F(MemifTest, NoWakeUpIsLost) {
  constexpr int kRounds = 50'000;
  Listen();
  const pid_t child = Fork();
  auto wait_for_frame = [](Port& port) {
    SystemClock clock;
    Frame frame;
    while (port.Receive({&frame, 1}) == 0) {
      if (!port.ArmWakeup()) continue;
      const bool is_awake = Readable(port, 20'000);
      port.DisarmWakeup();
      if (!is_awake) return false;
      port.Service(clock.NowNs());
    }
    port.Release({&frame, 1});
    return true;
  };
  if (child == 0) {
    auto port = MemifClientPort::Open(Options());
    for (int i = 0; i < kRounds; ++i) {
      // Sometimes early, sometimes late: the window is a few instructions.
      Spin((i * 7) % 400);
      SendText(**port, MacAddress::Broadcast(), "ping");
      if (!wait_for_frame(**port)) _exit(2);
    }
    _exit(0);
  }
  int rounds = 0;
  while (rounds < kRounds && wait_for_frame(*listener_)) {
    Spin((rounds * 13) % 300);
    SendText(*listener_, MacAddress::Broadcast(), "pong");
    ++rounds;
  }
  EXPECT_EQ(rounds, kRounds);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(MemifTest, TheWakeDescriptorIsQuietWhenNothingHappens) {
  Listen();
  auto client = Join();
  for (Port* port : {listener_.get(), client.get()}) {
    port->Service(clock_.NowNs());
    ASSERT_TRUE(port->ArmWakeup());
    EXPECT_FALSE(Readable(*port, 50));
    EXPECT_EQ(port->Service(clock_.NowNs()), kNever);
    port->DisarmWakeup();
  }
}

// A frame that a faulty port holds back wakes its receiver when it is let go.
TEST_F(MemifTest, AHeldBackFrameRingsWhenItIsDue) {
  Listen();
  FaultOptions options;
  options.reorder = 1;
  options.reorder_hold_ns = 20 * kMillisecond;
  options.on_transmit = false;
  FaultyPort client(Join(), clock_, options, 1);
  client.Service(clock_.NowNs());
  SendText(*listener_, client.info().mac, "late");
  EXPECT_THAT(ReceiveTexts(client), IsEmpty());
  ASSERT_TRUE(client.ArmWakeup());
  EXPECT_TRUE(Readable(client, 5000));
  client.DisarmWakeup();
  client.Service(clock_.NowNs());
  EXPECT_THAT(ReceiveTexts(client), ElementsAre("late"));
  EXPECT_TRUE(client.ArmWakeup());
  EXPECT_FALSE(Readable(client, 30));
}

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

// SPDX-License-Identifier: BSD-3-Clause
// The memif ports, both ends in this process or the other end in a child.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
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

#include "nic/base/random.h"
#include "nic/port/memif_port.h"
#include "tests/unit/port/frames.h"
#include "tests/unit/port/memif_fixture.h"

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
  const MacAddress mac = listener_->info().mac;
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
  // It says that it was away, and what it still sends to the old one comes to
  // the new one.
  EXPECT_EQ(client->counters().rejoins, 1u);
  EXPECT_EQ(listener_->info().mac, mac);
}

TEST_F(MemifTest, ListenersAtDifferentPlacesHaveDifferentMacs) {
  std::vector<std::unique_ptr<Port>> ports;
  std::set<MacAddress> macs;
  MemifOptions options = Options();
  std::filesystem::create_directory(directory_ + "/d");
  for (const char* path : {"/a", "/b", "/d/a"}) {
    options.path = directory_ + path;
    auto divided = MemifListenerPort::OpenDivided(options, 2);
    ASSERT_TRUE(divided.ok()) << divided.status();
    for (auto& port : *divided) {
      macs.insert(port->info().mac);
      ports.push_back(std::move(port));
    }
  }
  EXPECT_THAT(macs, SizeIs(6));
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

}  // namespace
}  // namespace tripwire

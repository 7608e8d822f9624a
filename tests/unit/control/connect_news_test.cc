// SPDX-License-Identifier: BSD-3-Clause
// What happens on a link before Connect has returned is told afterwards.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>

#include "nic/api/context.h"
#include "nic/port/memif_port.h"

namespace tripwire {
namespace {

uint64_t In(uint64_t ns) { return SystemClock().NowNs() + ns; }

std::unique_ptr<Nic> Open(const std::string& path, bool listen) {
  MemifOptions memif;
  memif.name = "memif:test";
  memif.path = path;
  auto port =
      listen ? MemifListenerPort::Open(memif) : MemifClientPort::Open(memif);
  EXPECT_TRUE(port.ok()) << port.status();
  NicOptions options;
  options.node = listen ? "server" : "client";
  options.ports.push_back(std::move(*port));
  return std::move(*Nic::Open(std::move(options)));
}

// A server and a client joined by a memif.
struct TwoNics {
  TwoNics() {
    char name[] = "/tmp/tripwire-connect-XXXXXX";
    directory = mkdtemp(name);
    server = Open(directory + "/sock", true);
    client = Open(directory + "/sock", false);
  }
  ~TwoNics() {
    client.reset();
    server.reset();
    unlink((directory + "/sock").c_str());
    rmdir(directory.c_str());
  }

  std::string directory;
  std::unique_ptr<Nic> server, client;
};

// Two contexts of one NIC: what is one's, the other cannot use.
TEST(Contexts, CannotUseEachOthersLinks) {
  const TwoNics nics;
  const auto server = nics.server->CreateContext();
  const auto client = nics.client->CreateContext();
  const auto other = nics.client->CreateContext();
  ASSERT_TRUE(server->Listen("svc").ok());
  const LinkId link = *client->StartConnect("server", "svc", {});
  Event event;
  ASSERT_EQ(server->Wait({&event, 1}, In(10 * kSecond)), 1u);
  ASSERT_TRUE(server->Accept(event.link, {}).ok());
  ASSERT_EQ(client->Wait({&event, 1}, In(10 * kSecond)), 1u);
  ASSERT_EQ(event.kind, EventKind::kLinkUp);

  std::vector<uint8_t> memory(64);
  const Aperture aperture = server->Export(memory, Access::kAny);
  const RemoteAperture remote = client->Import(link, aperture.name());
  const std::vector<uint8_t> data(8, 1);
  std::vector<uint8_t> into(8);
  Completion read, flush;
  EXPECT_FALSE(other->Write(remote, 0, data).ok());
  EXPECT_FALSE(other->Read(remote, 0, into, &read).ok());
  EXPECT_FALSE(other->Flush(link, &flush).ok());
  EXPECT_FALSE(other->SendMessage(link, data).ok());
  EXPECT_FALSE(other->TakeMessage(link).has_value());
  EXPECT_FALSE(other->Describe(link).ok());
  EXPECT_FALSE(other->IsUp(link));
  other->Close(link);
  EXPECT_TRUE(client->IsUp(link));
  EXPECT_TRUE(client->Flush(link, &flush).ok());
  EXPECT_TRUE(nics.client->WaitUntil([&] { return flush.done(); },
                                    In(10 * kSecond)));
  EXPECT_EQ(memory, std::vector<uint8_t>(64));
}

TEST(Connect, NewsFromBeforeItReturnedIsTold) {
  const TwoNics nics;
  const auto server = nics.server->CreateContext();
  const auto client = nics.client->CreateContext();
  ASSERT_TRUE(server->Listen("svc").ok());
  for (int round = 0; round < 20; ++round) {
    std::thread accepting([&] {
      Event event;
      while (server->Wait({&event, 1}, In(10 * kSecond)) > 0) {
        if (event.kind != EventKind::kConnectRequest) continue;
        ASSERT_TRUE(server->Accept(event.link, {}).ok());
        const uint8_t hello[] = {1, 2, 3};
        ASSERT_TRUE(server->SendMessage(event.link, hello).ok());
        if (round % 2 == 0) server->Close(event.link);
        return;
      }
      ADD_FAILURE() << "no connect request";
    });
    const auto link = client->Connect("server", "svc", {}, 10 * kSecond);
    accepting.join();
    // With a close so soon, the link may be gone before it was seen up.
    if (round % 2 == 0 && !link.ok()) continue;
    ASSERT_TRUE(link.ok()) << link.status();
    Event event;
    ASSERT_EQ(client->Wait({&event, 1}, In(10 * kSecond)), 1u);
    EXPECT_EQ(event.kind, EventKind::kMessage) << "and no link-up before it";
    EXPECT_EQ(client->TakeMessage(*link),
              (std::vector<uint8_t>{1, 2, 3}));
    if (round % 2 == 0) {
      ASSERT_EQ(client->Wait({&event, 1}, In(10 * kSecond)), 1u);
      EXPECT_EQ(event.kind, EventKind::kLinkDown);
    } else {
      client->Close(*link);
      ASSERT_EQ(server->Wait({&event, 1}, In(10 * kSecond)), 1u);
      EXPECT_EQ(event.kind, EventKind::kLinkDown);
    }
  }
}

}  // namespace
}  // namespace tripwire

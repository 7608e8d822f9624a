// SPDX-License-Identifier: BSD-3-Clause
// The API with real threads over real shared memory: who drives, who sleeps, who
// is woken.
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "nic/api/await.h"
#include "nic/api/context.h"
#include "nic/port/memif_port.h"

namespace tripwire {
namespace {

uint64_t Now() { return SystemClock().NowNs(); }

class ApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tripwire-api-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
  }
  void TearDown() override {
    unlink((directory_ + "/sock").c_str());
    rmdir(directory_.c_str());
  }

  std::unique_ptr<Nic> Open(const std::string& node, bool listen,
                            NicOptions options = {}) {
    MemifOptions memif;
    memif.name = "memif:test";
    memif.path = directory_ + "/sock";
    auto port = listen ? MemifListenerPort::Open(memif)
                       : MemifClientPort::Open(memif);
    EXPECT_TRUE(port.ok()) << port.status();
    options.node = node;
    options.ports.push_back(std::move(*port));
    auto nic = Nic::Open(std::move(options));
    EXPECT_TRUE(nic.ok()) << nic.status();
    return std::move(*nic);
  }

  // Accepts every request for `context` until told to stop.
  static LinkId AcceptOne(Context& context) {
    Event event;
    while (context.Wait({&event, 1}, Now() + 10 * kSecond) > 0) {
      if (event.kind == EventKind::kConnectRequest) {
        EXPECT_TRUE(context.Accept(event.link, {}).ok());
        return event.link;
      }
    }
    ADD_FAILURE() << "no connect request";
    return {};
  }

  std::string directory_;
};

struct Side {
  std::unique_ptr<Nic> nic;
  std::unique_ptr<Context> context;
  alignas(64) uint64_t words[512] = {};
  Aperture aperture;
  LinkId link;
  RemoteAperture peer;

  void Export() {
    aperture = context->Export({reinterpret_cast<uint8_t*>(words), sizeof words},
                               Access::kWrite | Access::kRead);
  }
  void Write(uint64_t index, uint64_t value) {
    ASSERT_TRUE(context
                    ->Write(peer, index * 8,
                            {reinterpret_cast<const uint8_t*>(&value), 8})
                    .ok());
  }
};

class PairTest : public ApiTest {
 protected:
  void Connect(NicOptions server_options = {}, NicOptions client_options = {}) {
    server_.nic = Open("server", true, std::move(server_options));
    server_.context = server_.nic->CreateContext();
    ASSERT_TRUE(server_.context->Listen("test").ok());
    server_.Export();
    client_.nic = Open("client", false, std::move(client_options));
    client_.context = client_.nic->CreateContext();
    client_.Export();
    std::thread acceptor([&] { server_.link = AcceptOne(*server_.context); });
    auto link = client_.context->Connect("server", "test", {}, 5 * kSecond);
    acceptor.join();
    ASSERT_TRUE(link.ok()) << link.status();
    client_.link = *link;
    client_.peer = client_.context->Import(client_.link, server_.aperture.name());
    server_.peer = server_.context->Import(server_.link, client_.aperture.name());
  }
  void TearDown() override {
    for (Side* side : {&client_, &server_}) {
      side->aperture = Aperture();
      side->context.reset();
      side->nic.reset();
    }
    ApiTest::TearDown();
  }

  void PingPong(int rounds) {
    std::thread echo([&] {
      for (int i = 1; i <= rounds; ++i) {
        ASSERT_TRUE(server_.context->WaitWord(server_.aperture, 0,
                                              static_cast<uint64_t>(i - 1),
                                              Now() + 20 * kSecond))
            << "round " << i;
        server_.Write(0, static_cast<uint64_t>(i));
      }
    });
    for (int i = 1; i <= rounds; ++i) {
      client_.Write(0, static_cast<uint64_t>(i));
      ASSERT_TRUE(client_.context->WaitWord(client_.aperture, 0,
                                            static_cast<uint64_t>(i - 1),
                                            Now() + 20 * kSecond))
          << "round " << i;
    }
    echo.join();
  }

  Side server_, client_;
};

TEST_F(PairTest, PingPongSpinning) {
  Connect();
  PingPong(20000);
}

TEST_F(PairTest, PingPongBlocking) {
  NicOptions server, client;
  server.max_spin_ns = client.max_spin_ns = 0;
  Connect(std::move(server), std::move(client));
  PingPong(3000);
}

TEST_F(PairTest, ServiceThreadsAloneCarryOneSidedOperations) {
  Connect();
  // Nobody waits on the server: its service thread places and answers.
  for (uint64_t i = 1; i < 512; ++i) client_.Write(i, i * 3);
  Completion flushed;
  ASSERT_TRUE(client_.context->Flush(client_.link, &flushed).ok());
  ASSERT_TRUE(client_.nic->WaitUntil([&] { return flushed.done(); },
                                     Now() + 10 * kSecond));
  for (uint64_t i = 1; i < 512; ++i) {
    EXPECT_EQ(__atomic_load_n(&server_.words[i], __ATOMIC_ACQUIRE), i * 3);
  }
  std::vector<uint64_t> into(512);
  Completion read;
  ASSERT_TRUE(client_.context
                  ->Read(client_.peer, 0,
                         {reinterpret_cast<uint8_t*>(into.data()), 4096}, &read)
                  .ok());
  ASSERT_TRUE(client_.nic->WaitUntil([&] { return read.done(); },
                                     Now() + 10 * kSecond));
  EXPECT_EQ(read.status.load(), OpStatus::kOk);
  EXPECT_EQ(into[511], 511u * 3);
}

TEST_F(PairTest, EventFdPollsReadable) {
  Connect();
  auto fd = server_.context->EventFd();
  ASSERT_TRUE(fd.ok()) << fd.status();
  Tripwire wire =
      server_.context->Watch(server_.aperture, 64, 8, Access::kWrite,
                             TripwireMode::kPersistent, 42);
  wire.Arm();
  pollfd waiting{*fd, POLLIN, 0};
  EXPECT_EQ(poll(&waiting, 1, 0), 0);
  for (int round = 0; round < 50; ++round) {
    client_.Write(8, static_cast<uint64_t>(round));
    ASSERT_EQ(poll(&waiting, 1, 10'000), 1) << "round " << round;
    Event event;
    ASSERT_EQ(server_.context->Poll({&event, 1}), 1u);
    EXPECT_EQ(event.kind, EventKind::kTripwire);
    EXPECT_EQ(event.cookie, 42u);
    EXPECT_EQ(event.count, 1u);
    EXPECT_EQ(poll(&waiting, 1, 0), 0);
  }
  wire.Remove();
}

TEST_F(PairTest, ManyThreadsWaitAtOnce) {
  Connect();
  constexpr int kThreads = 8, kRounds = 500;
  std::atomic<bool> stop{false};
  std::thread echo([&] {
    // Answers word i with the same value, whichever changes.
    std::vector<uint64_t> seen(kThreads + 1);
    while (!stop) {
      server_.nic->WaitUntil(
          [&] {
            for (int t = 1; t <= kThreads; ++t) {
              if (__atomic_load_n(&server_.words[t], __ATOMIC_ACQUIRE) != seen[t])
                return true;
            }
            return stop.load();
          },
          Now() + 20 * kSecond);
      for (int t = 1; t <= kThreads; ++t) {
        const uint64_t value =
            __atomic_load_n(&server_.words[t], __ATOMIC_ACQUIRE);
        if (value == seen[t]) continue;
        seen[t] = value;
        server_.Write(static_cast<uint64_t>(t), value);
      }
    }
  });
  std::vector<std::thread> threads;
  for (int t = 1; t <= kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 1; i <= kRounds; ++i) {
        client_.Write(static_cast<uint64_t>(t), i);
        ASSERT_TRUE(client_.context->WaitWord(client_.aperture,
                                              static_cast<uint64_t>(t) * 8,
                                              i - 1, Now() + 20 * kSecond))
            << "thread " << t << " round " << i;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  stop = true;
  server_.nic->Notify();
  echo.join();
}

TEST_F(PairTest, IdlePairSleeps) {
  Connect();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const uint64_t sleeps = server_.nic->counters().sleeps;
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  getrusage(RUSAGE_SELF, &after);
  const auto ms = [](const rusage& u) {
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
           (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000;
  };
  // Two idle NICs in two seconds: below one per cent of a core each.
  EXPECT_LT(ms(after) - ms(before), 40);
  EXPECT_LT(server_.nic->counters().sleeps - sleeps, 200u);
}

// Fires and forgets; the coroutine destroys itself at its end.
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::abort(); }
  };
};

Detached CountTo(Tripwire& tripwire, uint64_t rounds, std::atomic<uint64_t>& at) {
  for (uint64_t seen = 0; seen < rounds;) {
    seen = co_await Fired(tripwire, seen);
    at = seen;
  }
}

TEST_F(PairTest, CoroutinesAreResumedByTheThreadThatWaits) {
  NicOptions server;
  server.max_spin_ns = 0;
  Connect(std::move(server));
  Tripwire wire = server_.context->Watch(server_.aperture, 8, 8, Access::kWrite,
                                         TripwireMode::kPersistent, 0, false);
  wire.Arm();
  constexpr uint64_t kRounds = 300;
  std::atomic<uint64_t> at{0};
  CountTo(wire, kRounds, at);
  std::thread driver([&] {
    EXPECT_TRUE(server_.context->Drive([&] { return at == kRounds; },
                                       Now() + 20 * kSecond));
  });
  for (uint64_t i = 1; i <= kRounds; ++i) {
    client_.Write(1, i);
    if (i % 50 != 0) continue;
    // Let it fall asleep now and then.
    while (at < i) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  driver.join();
  wire.Remove();
}

TEST_F(PairTest, PeerGoneWakesTheSleeper) {
  Connect();
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    client_.aperture = Aperture();
    client_.context.reset();
  });
  Event event;
  ASSERT_EQ(server_.context->Wait({&event, 1}, Now() + 20 * kSecond), 1u);
  EXPECT_EQ(event.kind, EventKind::kLinkDown);
  EXPECT_EQ(event.end, LinkEnd::kClosedByPeer);
  killer.join();
}

TEST_F(PairTest, ConnectErrorsAreClear) {
  Connect();
  auto none = client_.context->Connect("server", "nothing", {}, 2 * kSecond);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(none.status().message().find("does not offer"), std::string::npos)
      << none.status();
  auto nobody = client_.context->Connect("nobody", "test", {}, kSecond / 5);
  EXPECT_EQ(nobody.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(nobody.status().message().find("nobody"), std::string::npos);
}

TEST_F(PairTest, DiscoverListsNodes) {
  Connect();
  const auto nodes = client_.nic->Discover(
      2 * kSecond, [](const auto& found) { return !found.empty(); });
  ASSERT_EQ(nodes.size(), 1u);
  EXPECT_EQ(nodes[0].node, "server");
  EXPECT_EQ(nodes[0].services, std::vector<std::string>{"test"});
}

}  // namespace
}  // namespace tripwire

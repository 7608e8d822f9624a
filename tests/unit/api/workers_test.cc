// SPDX-License-Identifier: BSD-3-Clause
// One node on several processors: whose clients are whose.
#include "nic/api/workers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "nic/api/context.h"
#include "nic/port/port_spec.h"

namespace tripwire {
namespace {

using ::testing::HasSubstr;

uint64_t Soon() { return SystemClock().NowNs() + 10 * kSecond; }

class WorkersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tripwire-workers-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
  }
  void TearDown() override {
    StopServing();
    workers_.reset();
    rmdir(directory_.c_str());
  }
  std::string Port() const { return "memif:" + directory_ + "/sock"; }

  // Every worker takes what peers write to a word of its own, and tells its number in
  // the answer to their connecting.
  void Serve(size_t count) {
    WorkersOptions options;
    options.node = "many";
    options.ports = {Port() + ",listen"};
    options.count = count;
    auto workers = Workers::Open(options);
    ASSERT_TRUE(workers.ok()) << workers.status();
    workers_ = *std::move(workers);
    words_.assign(count, 0);
    for (size_t i = 0; i < count; ++i) {
      contexts_.push_back(workers_->nic(i).CreateContext());
      ASSERT_TRUE(contexts_[i]->Listen("svc").ok());
    }
    serving_ = std::thread([this] {
      workers_->Run([this](size_t i, Nic&) { ServeOn(i); });
    });
  }
  void ServeOn(size_t worker) {
    Context& context = *contexts_[worker];
    Aperture aperture = context.Export(
        {reinterpret_cast<uint8_t*>(&words_[worker]), 8},
        Access::kWrite | Access::kAtomic);
    while (!stop_) {
      Event event;
      if (context.Wait({&event, 1}, Soon()) == 0) continue;
      if (event.kind != EventKind::kConnectRequest) continue;
      uint8_t answer[1 + ApertureName::kWireBytes] = {
          static_cast<uint8_t>(worker)};
      aperture.name().Serialize(answer + 1);
      EXPECT_TRUE(context.Accept(event.link, answer).ok());
    }
  }
  void StopServing() {
    if (!serving_.joinable()) return;
    stop_ = true;
    for (auto& context : contexts_) context->Interrupt();
    serving_.join();
    contexts_.clear();
  }

  struct Client {
    std::unique_ptr<Nic> nic;
    std::unique_ptr<Context> context;
    RemoteAperture word;
    size_t worker = 0;
  };
  std::unique_ptr<Client> Join() {
    auto joined = std::make_unique<Client>();
    Client& client = *joined;
    NicOptions options;
    options.node = "client";
    auto port = OpenPort(Port());
    EXPECT_TRUE(port.ok()) << port.status();
    options.ports.push_back(*std::move(port));
    client.nic = *Nic::Open(std::move(options));
    client.context = client.nic->CreateContext();
    auto link = client.context->Connect("many", "svc", {}, 10 * kSecond);
    EXPECT_TRUE(link.ok()) << link.status();
    const auto info = client.context->Describe(*link);
    EXPECT_TRUE(info.ok() && info->private_data.size() == 25);
    client.worker = info->private_data[0];
    client.word = client.context->Import(
        *link, ApertureName::Parse(info->private_data.data() + 1));
    return joined;
  }
  // Adds one to the word of the client's worker.
  void Add(Client& client) {
    Completion completion;
    ASSERT_TRUE(
        client.context->FetchAdd(client.word, 0, 1, nullptr, &completion).ok());
    ASSERT_TRUE(client.nic->WaitUntil([&] { return completion.done(); }, Soon()));
    EXPECT_EQ(completion.status, OpStatus::kOk);
  }

  std::string directory_;
  std::unique_ptr<Workers> workers_;
  std::vector<std::unique_ptr<Context>> contexts_;
  std::vector<uint64_t> words_;
  std::thread serving_;
  std::atomic<bool> stop_{false};
};

TEST_F(WorkersTest, ClientsAreDividedEvenlyAndEachStaysWithItsWorker) {
  Serve(3);
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<size_t> of_worker(3);
  for (int i = 0; i < 6; ++i) {
    clients.push_back(Join());
    ++of_worker[clients.back()->worker];
  }
  EXPECT_THAT(of_worker, ::testing::Each(2));
  for (int round = 0; round < 5; ++round) {
    for (auto& client : clients) Add(*client);
  }
  StopServing();
  EXPECT_THAT(words_, ::testing::Each(10));
  // All is done by the worker alone, and so it is counted there.
  for (size_t i = 0; i < 3; ++i) {
    const NicCounters counters = workers_->nic(i).counters();
    EXPECT_EQ(counters.links_up, 2u);
    EXPECT_EQ(counters.atomics, 10u);
  }
}

TEST_F(WorkersTest, NewClientsTakeThePlacesOfThoseThatLeft) {
  Serve(2);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(Join());
  std::erase_if(clients, [](const auto& client) { return client->worker == 1; });
  ASSERT_EQ(clients.size(), 2u);
  // Leaving is noticed a moment later.
  size_t joined = 0;
  for (int i = 0; i < 100 && joined < 2; ++i) {
    auto client = Join();
    if (client->worker != 1) continue;
    Add(*client);
    clients.push_back(std::move(client));
    ++joined;
  }
  EXPECT_EQ(joined, 2u);
}

TEST_F(WorkersTest, ThePeersSeeOneNode) {
  Serve(2);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 2; ++i) clients.push_back(Join());
  for (auto& client : clients) {
    const auto nodes = client->nic->Discover(
        10 * kSecond, [](const std::vector<NodeInfo>& found) { return !found.empty(); });
    ASSERT_EQ(nodes.size(), 1u);
    EXPECT_EQ(nodes[0].node, "many");
  }
}

TEST_F(WorkersTest, APortThatCannotBeDividedSaysSo) {
  WorkersOptions options;
  options.count = 2;
  options.ports = {Port()};
  EXPECT_THAT(Workers::Open(options).status().ToString(),
              HasSubstr("cannot be divided"));
  options.ports = {Port() + ",listen,capture=" + directory_ + "/c"};
  EXPECT_THAT(Workers::Open(options).status().ToString(),
              HasSubstr("cannot capture 2 ports"));
}

TEST_F(WorkersTest, OneWorkerIsANicLikeAnyOther) {
  Serve(1);
  WorkersOptions options;
  options.node = "client";
  options.count = 1;
  options.ports = {Port()};
  auto client = Workers::Open(options);
  ASSERT_TRUE(client.ok()) << client.status();
  auto context = (*client)->nic(0).CreateContext();
  EXPECT_TRUE(context->Connect("many", "svc", {}, 10 * kSecond).ok());
}

}  // namespace
}  // namespace tripwire

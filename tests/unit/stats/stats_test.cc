// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/stats/stats.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "nic/base/clock.h"
#include "nic/base/fd.h"
#include "nic/port/fabric.h"

namespace tripwire::stats {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class StatsTest : public ::testing::Test {
 protected:
  StatsTest() {
    std::string pattern = ::testing::TempDir() + "stats-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    directory_ = pattern;
    NicOptions options;
    options.node = "here";
    options.ports.push_back(fabric_.AddPort("here"));
    options.service_thread = false;
    options.clock = &clock_;
    options.seed = 1;
    nic_ = *Nic::Open(std::move(options));
  }
  ~StatsTest() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<Server> Start(Options options = {}) {
    if (options.program.empty()) options.program = "prog";
    options.directory = directory_;
    auto server = Server::Start(*nic_, std::move(options));
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }

  ManualClock clock_;
  Fabric fabric_{clock_};
  std::unique_ptr<Nic> nic_;
  std::string directory_;
};

TEST_F(StatsTest, TellsWhoItIsAndWhatTheNicCounted) {
  (*nic_).Discover(0);  // sends at least one frame
  Options options;
  options.detail = "serving \"x\"";
  options.extra = [] { return std::vector<Group>{{"cache", {{"hits", 7}}}}; };
  auto server = Start(options);
  const auto all = Collect({directory_});
  ASSERT_THAT(all, SizeIs(1));
  EXPECT_EQ(all[0].program, "prog");
  EXPECT_EQ(all[0].pid, static_cast<uint32_t>(::getpid()));
  EXPECT_EQ(all[0].node, "here");
  EXPECT_EQ(all[0].detail, "serving \"x\"");
  EXPECT_GT(all[0].Value("nic", "tx_frames"), 0u);
  EXPECT_EQ(all[0].Value("port 0", "tx_frames"),
            all[0].Value("nic", "tx_frames"));
  EXPECT_EQ(all[0].Value("cache", "hits"), 7u);
  EXPECT_EQ(all[0].Value("cache", "misses"), 0u);
}

TEST_F(StatsTest, SeveralProgramsAreAllFoundAndGoneOnesAreNot) {
  auto first = Start();
  auto second = Start();
  EXPECT_THAT(Collect({directory_}), SizeIs(2));
  first.reset();
  EXPECT_THAT(Collect({directory_}), SizeIs(1));
  second.reset();
  EXPECT_THAT(Collect({directory_}), IsEmpty());
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_F(StatsTest, TheSocketIsForItsOwnerOnly) {
  auto server = Start();
  struct stat info {};
  ASSERT_EQ(::stat(server->path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(StatsTest, ASocketWhoseProgramWasKilledIsRemoved) {
  const std::string path = directory_ + "/dead.1.stats";
  {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path.c_str());
    ASSERT_EQ(
        ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address),
        0);
  }
  EXPECT_THAT(Collect({directory_}), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(StatsTest, OtherFilesAreLeftAlone) {
  const std::string path = directory_ + "/precious.stats";
  UniqueFd fd(::open(path.c_str(), O_CREAT | O_WRONLY, 0600));
  EXPECT_THAT(Collect({directory_, "/no/such/directory"}), IsEmpty());
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(StatsTest, ASilentVisitorHoldsNobodyUp) {
  auto server = Start();
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, server->path().c_str());
  ASSERT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
                      sizeof address),
            0);
  EXPECT_THAT(Collect({directory_}), SizeIs(1));
}

TEST_F(StatsTest, GarbageIsNotTakenForStatistics) {
  const std::string path = directory_ + "/liar.1.stats";
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  ASSERT_EQ(
      ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address),
      0);
  ASSERT_EQ(::listen(fd.get(), 1), 0);
  std::thread liar([&] {
    UniqueFd peer(::accept(fd.get(), nullptr, nullptr));
    const std::string garbage(1000, '\xff');
    EXPECT_EQ(::send(peer.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL),
              1000);
  });
  EXPECT_THAT(Collect({directory_}), IsEmpty());
  liar.join();
}

TEST_F(StatsTest, APathTooLongIsRefused) {
  Options options;
  options.program = "prog";
  options.directory = directory_ + "/" + std::string(100, 'd');
  std::filesystem::create_directory(options.directory);
  const auto server = Server::Start(*nic_, options);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("too long"));
}

TEST(StatsFormatTest, JsonIsOneLineAndQuoted) {
  ProcessStats stats;
  stats.program = "p";
  stats.pid = 3;
  stats.node = "a\"b\\c\n";
  stats.uptime_ns = 9;
  stats.groups = {{"nic", {{"rx", 18446744073709551615u}, {"tx", 0}}},
                  {"none", {}}};
  EXPECT_EQ(ToJson(stats),
            "{\"program\":\"p\",\"pid\":3,\"node\":\"a\\\"b\\\\c\\u000a\","
            "\"detail\":\"\","
            "\"uptime_ns\":9,\"groups\":{\"nic\":{\"rx\":18446744073709551615,"
            "\"tx\":0},\"none\":{}},\"tables\":{}}");
}

TEST(StatsFormatTest, RowsOfTablesAreObjects) {
  ProcessStats stats;
  stats.tables = {{"links",
                   {"link", "frames", "checksum"},
                   "frames",
                   7,
                   {{std::string("0x1"), uint64_t{3}, true},
                    {std::string("\"2\""), uint64_t{0}, false}}}};
  EXPECT_THAT(
      ToJson(stats),
      HasSubstr("\"tables\":{\"links\":{\"all\":7,\"rows\":["
                "{\"link\":\"0x1\",\"frames\":3,\"checksum\":true},"
                "{\"link\":\"\\\"2\\\"\",\"frames\":0,\"checksum\":false}]}}"));
}

TEST(StatsFormatTest, WhatIsNotUtf8IsReplaced) {
  EXPECT_EQ(JsonQuote("a\xff"), "\"a\xef\xbf\xbd\"");
  EXPECT_EQ(JsonQuote("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
            "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
  EXPECT_EQ(JsonQuote("\xc0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");  // overlong
  EXPECT_EQ(JsonQuote("\xed\xa0\x80"),
            "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");  // surrogate
  EXPECT_EQ(JsonQuote("\xe2\x82"),
            "\"\xef\xbf\xbd\xef\xbf\xbd\"");  // cut short
}

}  // namespace
}  // namespace tripwire::stats

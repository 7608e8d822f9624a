// SPDX-License-Identifier: BSD-3-Clause
// What DPDK's telemetry socket tells of our NICs. A program of its own: DPDK
// starts only once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "nic/api/stats/stats.h"
#include "nic/base/fd.h"
#include "nic/port/port_spec.h"
#include "tests/sim/sim_pair.h"

namespace tripwire::stats {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class TelemetryTest : public ::testing::Test {
 protected:
  TelemetryTest() {
    char name[] = "/tmp/tw-telemetry-XXXXXX";
    directory_ = ::mkdtemp(name);
    ::setenv("RUNTIME_DIRECTORY", directory_.c_str(), 1);
  }
  ~TelemetryTest() override { std::filesystem::remove_all(directory_); }

  void Connect() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = directory_ + "/dpdk/tripwire/dpdk_telemetry.v2";
    ASSERT_LT(path.size(), sizeof address.sun_path);
    std::strcpy(address.sun_path, path.c_str());
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
    const timeval timeout{10, 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout,
                 sizeof timeout);
    ASSERT_EQ(::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address),
                        sizeof address),
              0)
        << path;
    Hear();  // who it is
  }
  std::string Hear() {
    std::vector<char> buffer(1 << 20);
    const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    return n > 0 ? std::string(buffer.data(), static_cast<size_t>(n)) : "";
  }
  std::string Ask(const std::string& command) {
    ::send(socket_.get(), command.data(), command.size(), MSG_NOSIGNAL);
    return Hear();
  }
  std::unique_ptr<Server> Offer(Nic& nic, const char* program) {
    Options options;
    options.program = program;
    options.directory = directory_;
    auto server = Server::Start(nic, std::move(options));
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }

  std::string directory_;
  UniqueFd socket_;
};

TEST_F(TelemetryTest, TellsOfEveryNicOfTheProcess) {
  std::vector<std::unique_ptr<Port>> ports;
  auto port = OpenPort("vdev:net_ring0,telemetry");
  ASSERT_TRUE(port.ok()) << port.status();
  ports.push_back(*std::move(port));
  NicOptions options;
  options.node = "on \"DPDK\"";
  options.ports = std::move(ports);
  options.service_thread = false;
  auto dpdk_nic = Nic::Open(std::move(options));
  ASSERT_TRUE(dpdk_nic.ok()) << dpdk_nic.status();
  (*dpdk_nic)->Discover(0);

  SimNetwork net(1);
  Pair pair(net);
  pair.Connect();
  std::vector<uint8_t> memory(4096);
  Aperture aperture = pair.right->Export(memory, Access::kWrite);
  Tripwire tripwire = pair.right->Watch(aperture, 8, 16, Access::kWrite,
                                        TripwireMode::kPersistent, 1);
  tripwire.Arm();
  Completion done;
  const std::vector<uint8_t> data(100, 1);
  ASSERT_TRUE(pair.left
                  ->Write(pair.left->Import(pair.left_link, aperture.name()), 0,
                          data, &done)
                  .ok());
  ASSERT_TRUE(net.RunUntil([&] { return done.done(); }, kSecond));

  auto first = Offer(**dpdk_nic, "first");
  auto second = Offer(pair.right_nic, "second");
  Connect();
  EXPECT_THAT(Ask("/"), HasSubstr("/tripwire/links"));
  EXPECT_THAT(Ask("/tripwire/list"), HasSubstr("\"nics\":[\"0\",\"1\"]"));
  EXPECT_THAT(Ask("/tripwire/info"), HasSubstr("\"program\":\"first\""));
  EXPECT_THAT(Ask("/tripwire/info,0"), HasSubstr("\"node\":\"on ?DPDK?\""));
  const std::string counters = Ask("/tripwire/counters,0");
  EXPECT_THAT(counters, HasSubstr("\"nic/tx_frames\":1,"));
  EXPECT_THAT(counters, HasSubstr("\"port_0/tx_frames\":1,"));
  EXPECT_THAT(counters, HasSubstr("\"dropped/malformed\":0,"));

  const std::string link =
      absl::StrCat("0x", absl::Hex(pair.right_link.value, absl::kZeroPad8));
  EXPECT_THAT(Ask("/tripwire/links,1"),
              HasSubstr("\"all\":1,\"links\":[\"" + link + "\"]"));
  const std::string one = Ask("/tripwire/links,1," + link);
  EXPECT_THAT(one, HasSubstr("\"node\":\"left\""));
  EXPECT_THAT(one, HasSubstr("\"received_frames\":1,"));
  EXPECT_THAT(Ask("/tripwire/apertures,1"),
              HasSubstr("\"apertures\":[\"0/0/1\"]"));
  EXPECT_THAT(Ask("/tripwire/apertures,1,0/0/1"),
              HasSubstr("\"accesses\":1,\"bytes\":100"));
  EXPECT_THAT(Ask("/tripwire/tripwires,1,0"), HasSubstr("\"count\":1,"));

  // What names nothing is answered with nothing, and nobody dies of it.
  for (const char* wrong :
       {"/tripwire/links,7", "/tripwire/links,x", "/tripwire/links,1,nothing",
         "/tripwire/counters,18446744073709551616"}) {
    EXPECT_THAT(Ask(wrong), Not(HasSubstr("all"))) << wrong;
  }
  second.reset();
  EXPECT_THAT(Ask("/tripwire/list"), HasSubstr("\"nics\":[\"0\"]"));
  EXPECT_THAT(Ask("/tripwire/info,1"), Not(HasSubstr("second")));
}

}  // namespace
}  // namespace tripwire::stats

// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/port_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "tests/unit/port/frames.h"

namespace tripwire {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

TEST(PortSpecTest, EveryKindOfPort) {
  auto spec = ParsePortSpec("memif:/run/x.sock,listen");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->kind, PortSpec::Kind::kMemif);
  EXPECT_EQ(spec->target, "/run/x.sock");
  EXPECT_TRUE(spec->listen);

  spec = ParsePortSpec("memif:x,wait,mtu=9000,buffers=100");
  ASSERT_TRUE(spec.ok());
  EXPECT_TRUE(spec->wait);
  EXPECT_FALSE(spec->listen);
  EXPECT_EQ(spec->mtu, 9000u);
  EXPECT_EQ(spec->buffers, 100u);

  spec = ParsePortSpec("eth:eth0.5,mtu=1400");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->kind, PortSpec::Kind::kEth);
  EXPECT_EQ(spec->target, "eth0.5");

  spec = ParsePortSpec("xdp:eth0,queue=3");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->queue, 3u);

  spec = ParsePortSpec("pci:0000:03:00.1,rx=2");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->target, "0000:03:00.1,rx=2");

  spec = ParsePortSpec("vdev:net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->target, "net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap");
}

TEST(PortSpecTest, FaultsGoBeforeAnyPort) {
  auto spec = ParsePortSpec(
      "faulty:loss=0.01,dup=0.02,reorder=0.03,corrupt=0.001,seed=7,dir=rx,"
      "reorder-frames=3,reorder-us=50,stall=0.5,stall-us=9:memif:/p,listen");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(spec->listen);
  EXPECT_EQ(spec->target, "/p");
  ASSERT_TRUE(spec->faults.has_value());
  EXPECT_EQ(spec->faults->options.loss, 0.01);
  EXPECT_EQ(spec->faults->options.duplicate, 0.02);
  EXPECT_EQ(spec->faults->options.reorder, 0.03);
  EXPECT_EQ(spec->faults->options.corrupt, 0.001);
  EXPECT_EQ(spec->faults->options.reorder_frames, 3u);
  EXPECT_EQ(spec->faults->options.reorder_hold_ns, 50'000u);
  EXPECT_EQ(spec->faults->options.stall, 0.5);
  EXPECT_EQ(spec->faults->options.stall_ns, 9'000u);
  EXPECT_EQ(spec->faults->seed, 7u);
  EXPECT_TRUE(spec->faults->options.on_receive);
  EXPECT_FALSE(spec->faults->options.on_transmit);
  EXPECT_FALSE(ParsePortSpec("memif:/p")->faults.has_value());
}

TEST(PortSpecTest, MistakesAreNamedInOneLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "no such kind"},
      {"memif", "no such kind"},
      {"ethernet:eth0", "no such kind"},
      {"memif:", "nothing follows"},
      {"eth:", "nothing follows"},
      {"memif:,listen", "nothing follows"},
      {"memif:/p,lisen", "'lisen'"},
      {"memif:/p,listen=1", "'listen=1'"},
      {"memif:/p,listen,wait", "nobody to wait"},
      {"memif:/p,mtu=20", "'mtu=20'"},
      {"memif:/p,mtu=99999", "'mtu=99999'"},
      {"memif:/p,mtu=1e3", "'mtu=1e3'"},
      {"memif:/p,mtu", "'mtu'"},
      {"memif:/p,buffers=0", "'buffers=0'"},
      {"eth:eth0,listen", "'listen'"},
      {"eth:eth0,queue=1", "'queue=1'"},
      {"faulty:loss=0.1", "must be followed"},
      {"faulty:loss=2:memif:/p", "'loss=2'"},
      {"faulty:loss=-1:memif:/p", "'loss=-1'"},
      {"faulty:loss=nan:memif:/p", "'loss=nan'"},
      {"faulty:lost=0.1:memif:/p", "'lost=0.1'"},
      {"faulty:loss:memif:/p", "'loss'"},
      {"faulty:dir=up:memif:/p", "'dir=up'"},
      {"faulty:loss=0.1:faulty:loss=0.1:memif:/p", "no such kind"},
  };
  for (const auto& [text, why] : cases) {
    const auto spec = ParsePortSpec(text);
    EXPECT_TRUE(absl::IsInvalidArgument(spec.status())) << text;
    const std::string message(spec.status().message());
    EXPECT_THAT(message, AllOf(HasSubstr(why), Not(HasSubstr("\n")))) << text;
  }
}

class DefaultPortTest : public ::testing::Test {
 protected:
  DefaultPortTest() {
    char name[] = "/tmp/tripwire-run-XXXXXX";
    runtime_ = mkdtemp(name);
    setenv("XDG_RUNTIME_DIR", runtime_.c_str(), 1);
  }
  ~DefaultPortTest() override { std::filesystem::remove_all(runtime_); }
  std::string runtime_;
};

TEST_F(DefaultPortTest, AClientFindsEveryServerAndOnlyLiveOnes) {
  EXPECT_EQ(DefaultPortDirectory(), runtime_ + "/tripwire");
  auto none = OpenDefaultPorts(PortRole::kClient, "");
  EXPECT_TRUE(absl::IsNotFound(none.status())) << none.status();
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("--port"));

  auto server = OpenDefaultPorts(PortRole::kServer, "node-fsd");
  ASSERT_TRUE(server.ok()) << server.status();
  struct stat info;
  ASSERT_EQ(stat((runtime_ + "/tripwire").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  EXPECT_TRUE(std::filesystem::exists(runtime_ + "/tripwire/node-fsd.sock"));
  auto again = OpenDefaultPorts(PortRole::kServer, "node-fsd");
  EXPECT_THAT(std::string(again.status().message()), HasSubstr("in use"));

  server->clear();
  EXPECT_FALSE(std::filesystem::exists(runtime_ + "/tripwire/node-fsd.sock"));
  EXPECT_TRUE(
      absl::IsNotFound(OpenDefaultPorts(PortRole::kClient, "").status()));
}

TEST_F(DefaultPortTest, NamesThatAreNoFileNamesAreRefused) {
  for (const char* name : {"", "a/b", "../x", ".hidden", "a,listen"}) {
    EXPECT_FALSE(OpenDefaultPorts(PortRole::kServer, name).ok()) << name;
  }
}

TEST_F(DefaultPortTest, ADirectoryOthersCanWriteToIsRefused) {
  const std::string directory = runtime_ + "/tripwire";
  mkdir(directory.c_str(), 0700);
  chmod(directory.c_str(), 0777);
  auto server = OpenDefaultPorts(PortRole::kServer, "x");
  EXPECT_TRUE(absl::IsPermissionDenied(server.status())) << server.status();
}

TEST_F(DefaultPortTest, AFaultyPortIsOpenedAsOne) {
  auto port =
      OpenPort("faulty:loss=1:memif:" + runtime_ + "/s,listen,mtu=2000");
  ASSERT_TRUE(port.ok()) << port.status();
  EXPECT_FALSE((*port)->info().is_reliable);
  EXPECT_EQ((*port)->info().max_frame_bytes, 2014u);
  EXPECT_TRUE(
      testing::SendText(**port, MacAddress::Broadcast(), "into the void"));
}

}  // namespace
}  // namespace tripwire

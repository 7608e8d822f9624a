// SPDX-License-Identifier: BSD-3-Clause
// The conformance suite as a stranger runs it: two processes and a real wire between.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "tests/system/harness/network.h"
#include "tests/system/harness/process.h"
#include "tests/system/harness/share.h"

namespace tripwire::systest {
namespace {

using ::testing::HasSubstr;

class ConformTest : public ::testing::TestWithParam<Wire> {
 protected:
  ConformTest() : network_(GetParam(), temp_.path(), 1) {}
  TempDir temp_;
  Network network_;
};

TEST_P(ConformTest, OurNicKeepsEveryPromise) {
  Process responder({Program("tw-conform"), "--respond", "--port", network_.ServerPort()},
                    network_.ServerNode());
  ASSERT_TRUE(Eventually(20, [&] {
    return responder.err().find("responding as node") != std::string::npos;
  })) << responder.err();
  const std::string junit = temp_.path() + "/report.xml";
  const Result run = Execute({Program("tw-conform"), "--port", network_.ClientPort(0),
                              "--tier", "full", "--junit", junit},
                             120, network_.ClientNode(0));
  EXPECT_EQ(run.exit_code, 0) << run.out << run.err;
  EXPECT_THAT(run.out, Not(HasSubstr("FAILED"))) << run.out;
  std::ifstream in(junit);
  std::ostringstream report;
  report << in.rdbuf();
  EXPECT_THAT(report.str(), HasSubstr("failures=\"0\""));
  EXPECT_TRUE(responder.Running()) << responder.err();
}

INSTANTIATE_TEST_SUITE_P(Over, ConformTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth, Wire::kXdp), WireName);

}  // namespace
}  // namespace tripwire::systest

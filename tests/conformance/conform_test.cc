// SPDX-License-Identifier: BSD-3-Clause
// The suite itself: a NIC of ours passes it, all of the documents is in it, and
// its reports say what happened.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "nic/conform/runner.h"
#include "tests/conformance/sim_world.h"

namespace tripwire::conform {
namespace {

constexpr uint64_t kNearWrap = (uint64_t{1} << 32) - 150;

TEST(Conform, EveryStatementOfTheDocumentsHasATestOrAReason) {
  std::set<std::string> checked;
  std::set<std::string> names;
  for (const TestCase& test : AllTests()) {
    EXPECT_TRUE(names.insert(test.name).second) << test.name << " twice";
    EXPECT_FALSE(test.statements.empty()) << test.name;
    for (const char* id : test.statements) checked.insert(id);
  }
  std::set<std::string> known;
  for (const Statement& statement : Statements()) {
    const std::string id(statement.id);
    EXPECT_TRUE(known.insert(id).second) << id << " is numbered twice";
    EXPECT_TRUE(checked.contains(id) || !WhyNotFromOutside(id).empty())
        << id << " has no test: " << statement.text;
    EXPECT_FALSE(checked.contains(id) && !WhyNotFromOutside(id).empty()) << id;
  }
  EXPECT_GT(known.size(), 90u);
  for (const std::string& id : checked) {
    EXPECT_TRUE(known.contains(id)) << id << " is in no document";
  }
}

void ExpectConforms(uint64_t first_sequence, const std::string& filter,
                    std::set<std::string> may_be_untested) {
  SimWorld world(first_sequence);
  RunOptions options;
  options.filter = filter;
  const auto report = conform::Run(world.segment(), options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->Conforms()) << ToText(*report);
  if (!filter.empty()) return;
  for (const StatementResult& s : report->statements) {
    EXPECT_TRUE(s.verdict == Verdict::kPassed ||
                may_be_untested.contains(std::string(s.statement.id)) ||
                !WhyNotFromOutside(s.statement.id).empty())
        << s.statement.id << " " << ToString(s.verdict) << ": " << s.reason;
  }
}

TEST(Conform, TheNicKeepsEveryPromise) {
  // M10 to M12 need a second processor that is not too busy.
  ExpectConforms(1, "", {"W19", "M10", "M11"});
}

TEST(Conform, TheNicKeepsThemAcrossTheWrapOfSequenceNumbers) {
  ExpectConforms(kNearWrap, "^sequence\\.|^sending\\.|^operation\\.", {});
}

TEST(Conform, ReportsTellWhatFailedWithItsFrames) {
  SimWorld world;
  RunOptions options;
  options.filter = "^memory\\.bounds$";
  auto report = conform::Run(world.segment(), options);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->tests.size(), 1u);
  EXPECT_TRUE(report->Conforms());
  EXPECT_NE(ToText(*report).find("core"), std::string::npos);
  // As if the NIC had let a write through.
  TestResult& test = report->tests.front();
  test.verdict = Verdict::kFailed;
  test.log = {{1, true, Encode(Packet{})}, {2, false, Bytes(60)}};
  for (StatementResult& s : report->statements) {
    if (s.statement.id != "M1") continue;
    s.verdict = Verdict::kFailed;
    s.reason = "a <write> & \"more\"";
    s.failed_in = &test;
    s.finding = {"M1", s.reason, 2};
  }
  EXPECT_FALSE(report->Conforms());
  const std::string text = ToText(*report);
  EXPECT_NE(text.find("FAILED M1 MUST: a <write>"), std::string::npos) << text;
  EXPECT_NE(text.find("    > "), std::string::npos) << text;
  const std::string junit = ToJunit(*report);
  EXPECT_NE(junit.find("a &lt;write&gt; &amp; &quot;more&quot;"),
            std::string::npos);
  EXPECT_NE(junit.find("failures=\"1\""), std::string::npos);
  const std::string json = ToJson(*report);
  EXPECT_NE(json.find("\"conforms\":false"), std::string::npos);
  EXPECT_NE(json.find("a <write> & \\\"more\\\""), std::string::npos);
}

TEST(Conform, WithoutAResponderItSaysSo) {
  ManualClock clock;
  class Alone final : public World {
   public:
    explicit Alone(ManualClock& clock) : clock_(clock) {}
    uint64_t NowNs() override { return clock_.NowNs(); }
    void Wait(Port&, uint64_t until_ns) override { clock_.AdvanceTo(until_ns); }
    uint64_t SlackNs() const override { return 0; }

   private:
    ManualClock& clock_;
  } world(clock);
  Fabric fabric(clock);
  Segment segment(fabric.AddPort("tester"), world);
  const auto report = conform::Run(segment, {});
  ASSERT_FALSE(report.ok());
  EXPECT_TRUE(absl::IsNotFound(report.status())) << report.status();
}

TEST(Conform, ChecksumsAreThoseOfTheStandard) {
  // RFC 3720, B.4.
  EXPECT_EQ(Crc32c(Bytes(32)), 0x8a9136aau);
  EXPECT_EQ(Crc32c(Bytes(32, 0xff)), 0x62a8ab43u);
}

}  // namespace
}  // namespace tripwire::conform

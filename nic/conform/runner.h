// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_RUNNER_H_
#define TRIPWIRE_NIC_CONFORM_RUNNER_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/conform/statements.h"
#include "nic/conform/test.h"

namespace tripwire::conform {

struct RunOptions {
  Tier tier = Tier::kFull;
  std::string filter;  // a regular expression on names of tests and statements
  std::string except;  // the same; these do not run
  std::string node;    // the responder's
  // Called before each test, for who must know which one brought the NIC down.
  std::function<void(const TestCase&)> on_test;
};

enum class Verdict : uint8_t { kPassed, kFailed, kNotTested };
const char* ToString(Verdict verdict);

struct TestResult {
  std::string name;
  Tier tier = Tier::kCore;
  Verdict verdict = Verdict::kNotTested;
  std::string reason;        // of a skip
  bool ended_early = false;  // failed, with checks still to come
  std::vector<Finding> findings;
  std::vector<LoggedFrame> log;  // of a failed test
  uint64_t took_ns = 0;
};

struct StatementResult {
  Statement statement;
  Tier tier = Tier::kCore;  // the lowest of its tests
  std::vector<std::string> tests;
  Verdict verdict = Verdict::kNotTested;
  std::string reason;  // why not tested, or what failed
  const TestResult* failed_in = nullptr;
  Finding finding;
};

struct Report {
  std::string node, description;
  Tier tier = Tier::kFull;
  std::vector<TestResult> tests;
  std::vector<StatementResult> statements;  // all of the documents

  bool Conforms() const;  // no MUST of the tier failed
};

// Runs the tests against the NIC that `wire` leads to. Errors: no responder.
absl::StatusOr<Report> Run(Segment& wire, const RunOptions& options);

// report.cc: a report as people and programs read it.
std::string ListStatements();
std::string ToText(const Report& report);
std::string ToJson(const Report& report);
std::string ToJunit(const Report& report);

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_RUNNER_H_

// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/runner.h"

#include <algorithm>
#include <regex>

#include "absl/strings/str_cat.h"

namespace tripwire::conform {
namespace {

constexpr size_t kLogKept = 400;  // frames of a failed test, the last before it

bool Matches(const TestCase& test, const std::string& filter) {
  const std::regex expression(filter);
  if (std::regex_search(test.name, expression)) return true;
  return std::any_of(test.statements.begin(), test.statements.end(),
                     [&](const char* id) {
                       return std::regex_match(std::string(id), expression);
                     });
}

TestResult RunOne(Segment& wire, Subject& nic, const TestCase& test_case,
                  int number) {
  TestResult result;
  result.name = test_case.name;
  result.tier = test_case.tier;
  wire.Forget();
  const uint64_t start_ns = wire.NowNs();
  {
    Test test(wire, nic, number);
    try {
      test_case.run(test);
      result.verdict = Verdict::kPassed;
    } catch (const TestFailure& failure) {
      result.ended_early = true;
      test.findings().push_back({failure.statement.empty()
                                     ? test_case.statements.front()
                                     : failure.statement,
                                 failure.text, wire.log().size()});
    } catch (const TestSkipped& skipped) {
      result.reason = skipped.reason;
    }
    result.findings = std::move(test.findings());
    for (const Complaint& complaint : wire.complaints()) {
      result.findings.push_back(
          {complaint.statement, complaint.text, complaint.log_end});
    }
  }
  result.took_ns = wire.NowNs() - start_ns;
  if (!result.findings.empty()) {
    result.verdict = Verdict::kFailed;
    const size_t end =
        std::max_element(result.findings.begin(), result.findings.end(),
                         [](const Finding& a, const Finding& b) {
                           return a.log_end < b.log_end;
                         })
            ->log_end;
    const size_t kept = std::min(end, kLogKept);
    const auto& log = wire.log();
    const size_t from = end - kept;
    result.log.assign(
        log.begin() + static_cast<ptrdiff_t>(from),
        log.begin() + static_cast<ptrdiff_t>(std::min(end, log.size())));
    for (Finding& finding : result.findings) {
      finding.log_end -= std::min(finding.log_end, from);
    }
  }
  return result;
}

// What the tests together say of one statement.
StatementResult Judge(const Statement& statement,
                      const std::vector<TestCase>& cases,
                      const std::vector<TestResult>& results, Tier tier) {
  StatementResult judged;
  judged.statement = statement;
  judged.tier = Tier::kFull;
  bool first = true, all_passed = true;
  for (const TestCase& test : cases) {
    if (std::find(test.statements.begin(), test.statements.end(),
                  statement.id) == test.statements.end()) {
      continue;
    }
    judged.tier = first ? test.tier : std::min(judged.tier, test.tier);
    first = false;
    judged.tests.push_back(test.name);
    if (test.tier > tier) continue;
    const auto it =
        std::find_if(results.begin(), results.end(),
                     [&](const TestResult& r) { return r.name == test.name; });
    if (it == results.end()) {
      if (judged.reason.empty()) judged.reason = "its tests were not chosen";
      all_passed = false;
    } else if (it->verdict == Verdict::kNotTested) {
      judged.reason = it->reason;
      all_passed = false;
    } else if (it->ended_early) {
      judged.reason = absl::StrCat(it->name, " ended before it got there");
      all_passed = false;
    } else if (judged.verdict == Verdict::kNotTested) {
      judged.verdict = Verdict::kPassed;
    }
  }
  if (!all_passed && judged.verdict == Verdict::kPassed) {
    // Some of its tests passed and none found it broken; one could not run, or
    // ended for another reason.
    judged.verdict = Verdict::kNotTested;
  }
  for (const TestResult& result : results) {
    for (const Finding& finding : result.findings) {
      if (finding.statement != statement.id) continue;
      if (judged.verdict == Verdict::kFailed) continue;
      judged.verdict = Verdict::kFailed;
      judged.reason = finding.text;
      judged.failed_in = &result;
      judged.finding = finding;
    }
  }
  if (judged.tests.empty() && judged.verdict == Verdict::kNotTested) {
    judged.reason = std::string(WhyNotFromOutside(statement.id));
    if (judged.reason.empty()) judged.reason = "no test";
  } else if (first == false && judged.tier > tier &&
             judged.verdict == Verdict::kNotTested) {
    judged.reason = absl::StrCat("belongs to tier ", ToString(judged.tier));
  }
  return judged;
}

}  // namespace

const char* ToString(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPassed:
      return "passed";
    case Verdict::kFailed:
      return "failed";
    default:
      return "not tested";
  }
}

bool Report::Conforms() const {
  return std::none_of(statements.begin(), statements.end(),
                      [&](const StatementResult& s) {
                        return s.verdict == Verdict::kFailed &&
                               s.statement.level() == Level::kMust;
                      });
}

absl::StatusOr<Report> Run(Segment& wire, const RunOptions& options) {
  Subject nic(wire);
  if (const absl::Status connected = nic.Connect(options.node);
      !connected.ok()) {
    return connected;
  }
  Report report;
  report.node = nic.node();
  report.description = nic.description();
  report.tier = options.tier;
  const std::vector<TestCase> cases = AllTests();
  int number = 0;
  int unanswered = 0;
  for (const TestCase& test_case : cases) {
    ++number;
    if (test_case.tier > options.tier ||
        (!options.filter.empty() && !Matches(test_case, options.filter)) ||
        (!options.except.empty() && Matches(test_case, options.except))) {
      continue;
    }
    if (options.on_test) options.on_test(test_case);
    report.tests.push_back(RunOne(wire, nic, test_case, number));
    // A NIC that broke down in a test may be well enough for the next one.
    if (report.tests.back().verdict == Verdict::kFailed && !nic.Alive()) {
      if (++unanswered > 5 || !nic.Connect(options.node).ok()) break;
    }
  }
  for (const Statement& statement : Statements()) {
    report.statements.push_back(
        Judge(statement, cases, report.tests, options.tier));
  }
  return report;
}

}  // namespace tripwire::conform

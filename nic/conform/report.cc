// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nic/conform/runner.h"

namespace tripwire::conform {
namespace {

constexpr size_t kFramesShown = 12;

std::string JsonQuote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          absl::StrAppendFormat(&out, "\\u%04x", c);
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

std::string XmlQuote(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\n':
        out += "&#10;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return out;
}

// The last frames up to what was found, ours with ">".
std::vector<std::string> Frames(const TestResult& result,
                                const Finding& finding) {
  std::vector<std::string> lines;
  const size_t end = std::min(finding.log_end, result.log.size());
  const size_t from = end - std::min(end, kFramesShown);
  const uint64_t start_ns = end > from ? result.log[from].at_ns : 0;
  for (size_t i = from; i < end; ++i) {
    const LoggedFrame& frame = result.log[i];
    lines.push_back(
        absl::StrFormat("%s %9.3f ms  %s", frame.sent ? ">" : "<",
                        static_cast<double>(frame.at_ns - start_ns) / 1e6,
                        Describe(frame.bytes)));
  }
  return lines;
}

struct Score {
  int passed = 0, failed = 0, not_tested = 0;
  void Add(Verdict verdict) {
    ++(verdict == Verdict::kPassed   ? passed
       : verdict == Verdict::kFailed ? failed
                                     : not_tested);
  }
  int total() const { return passed + failed + not_tested; }
};

// By tier; [0] MUSTs, [1] the others.
std::array<std::array<Score, 2>, 3> Scores(const Report& report) {
  std::array<std::array<Score, 2>, 3> scores;
  for (const StatementResult& s : report.statements) {
    const size_t level = s.statement.level() == Level::kMust ? 0 : 1;
    scores[static_cast<size_t>(s.tier)][level].Add(s.verdict);
  }
  return scores;
}

std::string ScoreLines(const Report& report) {
  const auto scores = Scores(report);
  std::string out;
  for (const Tier tier : {Tier::kCore, Tier::kFunctional, Tier::kFull}) {
    if (tier > report.tier) break;
    const auto& [must, other] = scores[static_cast<size_t>(tier)];
    absl::StrAppendFormat(
        &out,
        "%-11s MUST %3d of %3d passed, %d failed, %d not tested; "
        "SHOULD and MAY %d of %d\n",
        ToString(tier), must.passed, must.total(), must.failed, must.not_tested,
        other.passed, other.total());
  }
  return out;
}

}  // namespace

std::string ListStatements() {
  const std::vector<TestCase> cases = AllTests();
  std::string out;
  for (const Statement& statement : Statements()) {
    absl::StrAppendFormat(&out, "%s %s: %s\n", statement.id,
                          ToString(statement.level()), statement.text);
    bool any = false;
    for (const TestCase& test : cases) {
      if (std::find(test.statements.begin(), test.statements.end(),
                    statement.id) == test.statements.end()) {
        continue;
      }
      any = true;
      absl::StrAppendFormat(&out, "    %-11s %s\n", ToString(test.tier),
                            test.name);
    }
    if (!any) {
      absl::StrAppend(&out, "    no test: ",
                      std::string(WhyNotFromOutside(statement.id)), "\n");
    }
  }
  return out;
}

std::string ToText(const Report& report) {
  std::string out = absl::StrFormat("node \"%s\" (%s), tier %s, %u tests\n",
                                    report.node, report.description,
                                    ToString(report.tier), report.tests.size());
  for (const StatementResult& s : report.statements) {
    if (s.verdict != Verdict::kFailed) continue;
    absl::StrAppendFormat(&out, "FAILED %s %s: %s  [%s]\n", s.statement.id,
                          ToString(s.statement.level()), s.reason,
                          s.failed_in->name);
    absl::StrAppend(&out, "    rule: ", std::string(s.statement.text), "\n");
    for (const std::string& line : Frames(*s.failed_in, s.finding)) {
      absl::StrAppend(&out, "    ", line, "\n");
    }
  }
  for (const StatementResult& s : report.statements) {
    if (s.verdict != Verdict::kNotTested || s.tier > report.tier) continue;
    absl::StrAppendFormat(&out, "not tested %s %s: %s\n", s.statement.id,
                          ToString(s.statement.level()), s.reason);
  }
  return out + ScoreLines(report);
}

std::string ToJson(const Report& report) {
  std::string out =
      absl::StrCat("{\"node\":", JsonQuote(report.node),
                   ",\"nic\":", JsonQuote(report.description), ",\"tier\":\"",
                   ToString(report.tier),
                   "\",\"conforms\":", report.Conforms() ? "true" : "false",
                   ",\"statements\":[");
  const char* comma = "";
  for (const StatementResult& s : report.statements) {
    std::vector<std::string> tests;
    for (const std::string& name : s.tests) tests.push_back(JsonQuote(name));
    absl::StrAppend(&out, comma, "\n{\"id\":", JsonQuote(s.statement.id),
                    ",\"level\":\"", ToString(s.statement.level()),
                    "\",\"tier\":\"", ToString(s.tier), "\",\"verdict\":\"",
                    ToString(s.verdict),
                    "\",\"text\":", JsonQuote(s.statement.text),
                    ",\"reason\":", JsonQuote(s.reason), ",\"tests\":[",
                    absl::StrJoin(tests, ","), "]");
    if (s.failed_in != nullptr) {
      std::vector<std::string> frames;
      for (const std::string& line : Frames(*s.failed_in, s.finding)) {
        frames.push_back(JsonQuote(line));
      }
      absl::StrAppend(&out, ",\"failed_in\":", JsonQuote(s.failed_in->name),
                      ",\"frames\":[", absl::StrJoin(frames, ","), "]");
    }
    out += "}";
    comma = ",";
  }
  absl::StrAppend(&out, "],\"tests\":[");
  comma = "";
  for (const TestResult& test : report.tests) {
    absl::StrAppendFormat(
        &out,
        "%s\n{\"name\":%s,\"tier\":\"%s\",\"verdict\":\"%s\",\"ms\":%.3f}",
        comma, JsonQuote(test.name), ToString(test.tier),
        ToString(test.verdict), static_cast<double>(test.took_ns) / 1e6);
    comma = ",";
  }
  absl::StrAppend(&out, "],\"scores\":{");
  const auto scores = Scores(report);
  comma = "";
  for (const Tier tier : {Tier::kCore, Tier::kFunctional, Tier::kFull}) {
    const Score& must = scores[static_cast<size_t>(tier)][0];
    absl::StrAppendFormat(
        &out, "%s\"%s\":{\"passed\":%d,\"failed\":%d,\"not_tested\":%d}", comma,
        ToString(tier), must.passed, must.failed, must.not_tested);
    comma = ",";
  }
  return out + "}}\n";
}

// One case for each statement of the tier.
std::string ToJunit(const Report& report) {
  std::string cases;
  int tests = 0, failures = 0, skipped = 0;
  for (const StatementResult& s : report.statements) {
    if (s.tier > report.tier && s.verdict == Verdict::kNotTested) continue;
    ++tests;
    absl::StrAppendFormat(&cases,
                          "  <testcase classname=\"%s\" name=\"%s %s\">",
                          ToString(s.tier), s.statement.id,
                          XmlQuote(s.statement.text.substr(0, 120)));
    if (s.verdict == Verdict::kFailed) {
      ++failures;
      const std::string frames =
          absl::StrJoin(Frames(*s.failed_in, s.finding), "\n");
      absl::StrAppendFormat(&cases, "<failure message=\"%s: %s\">%s</failure>",
                            XmlQuote(s.failed_in->name), XmlQuote(s.reason),
                            XmlQuote(frames));
    } else if (s.verdict == Verdict::kNotTested) {
      ++skipped;
      absl::StrAppendFormat(&cases, "<skipped message=\"%s\"/>",
                            XmlQuote(s.reason));
    }
    absl::StrAppend(&cases, "</testcase>\n");
  }
  return absl::StrFormat(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<testsuite name=\"tw-conform\" tests=\"%d\" failures=\"%d\" "
      "skipped=\"%d\">\n%s</testsuite>\n",
      tests, failures, skipped, cases);
}

}  // namespace tripwire::conform

// SPDX-License-Identifier: BSD-3-Clause
// The whole suite over the NIC this program is linked with, healthy or a
// mutant. Says `FAILED statement test: what` for each statement that did not
// hold, `NOT-TESTED statement: why` for each that could not be looked at, and
// `DONE`.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <set>
#include <string>

#include "nic/conform/runner.h"
#include "tests/conformance/sim_world.h"

namespace tripwire::conform {
namespace {

// Where the numbers of frames pass 2^32 soon.
constexpr uint64_t kNearWrap = (uint64_t{1} << 32) - 150;

// The test that runs, for when it brings the NIC, and so this program, down.
const TestCase* running = nullptr;

void OnCrash(int) {
  char line[256];
  const int n =
      std::snprintf(line, sizeof line, "FAILED %s %s: the NIC crashed\n",
                    running->statements.front(), running->name);
  [[maybe_unused]] const ssize_t written =
      write(1, line, static_cast<size_t>(n));
  _exit(1);
}

int Main(int argc, char** argv) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  TestCase none{"the beginning", Tier::kCore, {"W72"}, nullptr};
  running = &none;
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE}) {
    signal(number, OnCrash);
  }
  RunOptions options;
  options.on_test = [](const TestCase& test) { running = &test; };
  // "fast": without the tests that need a second processor for a while.
  if (argc > 1 && std::string(argv[1]) == "fast") {
    options.except = "^memory\\.(whole|last)";
  } else if (argc > 1) {
    options.filter = argv[1];
  }
  const bool verbose = argc > 2;
  std::set<std::string> failed, passed;
  std::map<std::string, std::string> why;  // not tested
  for (const uint64_t first : {uint64_t{1}, kNearWrap}) {
    RunOptions run = options;
    if (first != 1 && run.filter.empty())
      run.filter = "^sequence\\.|^sending\\.sent";
    SimWorld world(first);
    const auto report = Run(world.segment(), run);
    if (!report.ok()) {
      std::printf("FAILED W72 connect: %s\n",
                  std::string(report.status().message()).c_str());
      continue;
    }
    if (verbose) std::fputs(ToText(*report).c_str(), stdout);
    for (const StatementResult& s : report->statements) {
      const std::string id(s.statement.id);
      if (s.verdict == Verdict::kPassed) passed.insert(id);
      if (s.verdict == Verdict::kNotTested) why.try_emplace(id, s.reason);
      if (s.verdict == Verdict::kFailed && failed.insert(id).second) {
        std::printf("FAILED %s %s: %s\n", id.c_str(), s.failed_in->name.c_str(),
                    s.reason.c_str());
      }
    }
  }
  for (const auto& [id, reason] : why) {
    if (passed.contains(id) || failed.contains(id) ||
        !WhyNotFromOutside(id).empty()) {
      continue;  // or nobody can
    }
    std::printf("NOT-TESTED %s: %s\n", id.c_str(), reason.c_str());
  }
  std::printf("DONE %zu passed, %zu failed\n", passed.size(), failed.size());
  return failed.empty() ? 0 : 1;
}

}  // namespace
}  // namespace tripwire::conform

int main(int argc, char** argv) { return tripwire::conform::Main(argc, argv); }

// SPDX-License-Identifier: BSD-3-Clause
// The suite must pass the healthy NIC and catch every one that is broken on
// purpose, by one of the statements the change was made to break. Leaves a
// table.
#include "tests/conformance/mutants.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "nic/base/clock.h"

extern char** environ;

namespace tripwire::conform {
namespace {

constexpr uint64_t kLongestNs = 120 * kSecond;
constexpr uint64_t kLongestBuildNs = 1500 * kSecond;

struct Outcome {
  std::string output;
  std::set<std::string> failed;  // statements
  std::set<std::string> not_tested;
  bool done = false;  // the program ran to its end
};

// Runs the program, for so long at most; gives what it prints. With `status`,
// waits for how it ends.
bool RunProgram(const std::vector<std::string>& words, uint64_t longest_ns,
                std::string* output, int* status) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
  std::vector<char*> argv;
  for (const std::string& word : words) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    return false;
  }
  SystemClock clock;
  const uint64_t end_ns = clock.NowNs() + longest_ns;
  char buffer[4096];
  bool ended = false;
  while (!ended && clock.NowNs() < end_ns) {
    pollfd fd{ends[0], POLLIN, 0};
    if (poll(&fd, 1, 1000) <= 0) continue;
    const ssize_t n = read(ends[0], buffer, sizeof buffer);
    ended = n <= 0;
    if (!ended) output->append(buffer, static_cast<size_t>(n));
  }
  close(ends[0]);
  if (!ended) kill(pid, SIGKILL);
  waitpid(pid, status, 0);
  return true;
}

Outcome RunJudge(const std::string& name, const std::string& tests) {
  Outcome outcome;
  int status = 0;
  if (!RunProgram(
          {std::string(TRIPWIRE_MUTANTS_DIR "/bin/mutant_") + name, tests},
          kLongestNs, &outcome.output, &status)) {
    ADD_FAILURE() << name
                  << " was not built; see " TRIPWIRE_MUTANTS_DIR "/build.log";
    return outcome;
  }
  std::istringstream lines(outcome.output);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string what, id;
    words >> what >> id;
    if (what == "FAILED") outcome.failed.insert(id);
    if (what == "NOT-TESTED")
      outcome.not_tested.insert(id.substr(0, id.size() - 1));
    if (what == "DONE") outcome.done = true;
  }
  return outcome;
}

std::vector<Mutant> AllMutants() {
  std::string error;
  auto mutants = ReadMutants(TRIPWIRE_MUTANTS, &error);
  if (!error.empty()) {
    std::fprintf(stderr, "%s\n", error.c_str());
    std::abort();
  }
  return mutants;
}

// Builds the mutants before anything else, as many as can be built; and leaves
// the table that ./check shows.
class Table : public ::testing::Environment {
 public:
  void SetUp() override {
    std::string log;
    int status = 0;
    const bool ran = RunProgram({TRIPWIRE_CMAKE, "--build", TRIPWIRE_BUILD,
                                 "--target", "mutants", "--", "-k", "0"},
                                kLongestBuildNs, &log, &status);
    std::ofstream(TRIPWIRE_MUTANTS_DIR "/build.log") << log;
    EXPECT_TRUE(ran && status == 0)
        << "not every mutant could be built; see " TRIPWIRE_MUTANTS_DIR
           "/build.log: "
        << (log.size() > 2000 ? log.substr(log.size() - 2000) : log);
  }
  void TearDown() override {
    if (rows().empty()) return;
    std::ofstream out(TRIPWIRE_MUTANTS_DIR "/table");
    for (const auto& [name, row] : rows()) {
      out << row << "\n";
      std::printf("%s\n", row.c_str());
    }
  }
  static std::map<std::string, std::string>& rows() {
    static std::map<std::string, std::string> rows;
    return rows;
  }
};
const auto* const table = ::testing::AddGlobalTestEnvironment(new Table);

class Mutants : public ::testing::TestWithParam<Mutant> {};

TEST_P(Mutants, IsCaught) {
  const Mutant& mutant = GetParam();
  const bool needs_observer = std::any_of(
      mutant.breaks.begin(), mutant.breaks.end(),
      [](const std::string& id) { return id == "M10" || id == "M11"; });
  const Outcome outcome = RunJudge(mutant.name, needs_observer ? "" : "fast");
  std::string caught;
  for (const std::string& id : outcome.failed)
    caught += (caught.empty() ? "" : " ") + id;
  const bool as_meant = std::any_of(
      mutant.breaks.begin(), mutant.breaks.end(),
      [&](const std::string& id) { return outcome.failed.contains(id); });
  char row[512];
  std::snprintf(row, sizeof row, "%-34s %-62s %s", mutant.name.c_str(),
                mutant.what.c_str(),
                outcome.failed.empty() ? "NOT CAUGHT" : caught.c_str());
  Table::rows()[mutant.name] = row;
  EXPECT_FALSE(outcome.failed.empty()) << "not caught: " << mutant.what;
  EXPECT_TRUE(as_meant) << "caught, but by other statements than meant:\n"
                        << outcome.output;
}

std::vector<Mutant> Each() { return AllMutants(); }
INSTANTIATE_TEST_SUITE_P(All, Mutants, ::testing::ValuesIn(Each()),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(HealthyNic, PassesEverything) {
  const Outcome outcome = RunJudge("none", "");
  EXPECT_TRUE(outcome.done) << outcome.output;
  EXPECT_TRUE(outcome.failed.empty()) << outcome.output;
  // These need a second processor that is not too busy.
  for (const std::string& id : outcome.not_tested) {
    EXPECT_TRUE(id == "M10" || id == "M11") << outcome.output;
  }
}

TEST(MutantList, IsLongAndWithoutRepetitions) {
  std::set<std::string> names;
  for (const Mutant& mutant : AllMutants()) {
    EXPECT_TRUE(names.insert(mutant.name).second) << mutant.name;
  }
  EXPECT_GE(names.size(), 40u);
}

}  // namespace
}  // namespace tripwire::conform

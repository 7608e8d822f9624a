// SPDX-License-Identifier: BSD-3-Clause
// mutate MUTANTS NAME ROOT OUT: writes a copy of the mutant's source file to
// OUT/SOURCE with its one change made. Fails, saying why, when the text to
// change is not there exactly once.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/conformance/mutants.h"

int main(int argc, char** argv) {
  using tripwire::conform::Mutant;
  if (argc != 5) {
    std::fprintf(stderr, "usage: mutate MUTANTS NAME ROOT OUT\n");
    return 2;
  }
  std::string error;
  const auto mutants = tripwire::conform::ReadMutants(argv[1], &error);
  if (!error.empty()) {
    std::fprintf(stderr, "mutate: %s\n", error.c_str());
    return 1;
  }
  for (const Mutant& mutant : mutants) {
    if (mutant.name != argv[2]) continue;
    std::ostringstream text;
    text << std::ifstream(std::string(argv[3]) + "/" + mutant.source).rdbuf();
    std::string source = text.str();
    const size_t at = source.find(mutant.before);
    if (at == std::string::npos ||
        source.find(mutant.before, at + 1) != std::string::npos) {
      std::fprintf(stderr,
                   "mutate: mutant %s: the text it changes is %s in %s; "
                   "adapt tests/conformance/mutants.txt\n",
                   mutant.name.c_str(),
                   at == std::string::npos ? "no longer" : "more than once",
                   mutant.source.c_str());
      return 1;
    }
    source.replace(at, mutant.before.size(), mutant.after);
    const std::filesystem::path to =
        std::filesystem::path(argv[4]) / mutant.source;
    std::filesystem::create_directories(to.parent_path());
    std::ofstream(to) << source;
    return 0;
  }
  std::fprintf(stderr, "mutate: no mutant %s\n", argv[2]);
  return 1;
}

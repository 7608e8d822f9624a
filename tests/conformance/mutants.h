// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_CONFORMANCE_MUTANTS_H_
#define TRIPWIRE_TESTS_CONFORMANCE_MUTANTS_H_

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace tripwire::conform {

// A NIC broken on purpose: one change to one source file. mutants.txt says how
// they are written down.
struct Mutant {
  std::string name, source, what;
  std::vector<std::string> breaks;  // statements; one of them must be caught
  std::string before, after;        // the change
};

// All of the file. `error` says what is wrong with it, if something is.
inline std::vector<Mutant> ReadMutants(const std::string& path,
                                       std::string* error) {
  std::vector<Mutant> mutants;
  std::ifstream file(path);
  if (!file) *error = "cannot read " + path;
  std::string* text = nullptr;  // a change being read
  for (std::string line; std::getline(file, line);) {
    const auto value = [&](const char* key) -> const char* {
      const std::string prefix = std::string("@") + key + " ";
      return line.rfind(prefix, 0) == 0 ? line.c_str() + prefix.size()
                                        : nullptr;
    };
    if (const char* name = value("mutant")) {
      mutants.push_back({});
      mutants.back().name = name;
      text = nullptr;
    } else if (mutants.empty()) {
      continue;  // what the file says about itself
    } else if (const char* source = value("source")) {
      mutants.back().source = source;
    } else if (const char* what = value("what")) {
      mutants.back().what = what;
    } else if (const char* breaks = value("breaks")) {
      std::istringstream ids(breaks);
      for (std::string id; ids >> id;) mutants.back().breaks.push_back(id);
    } else if (line == "@before") {
      text = &mutants.back().before;
    } else if (line == "@after") {
      text = &mutants.back().after;
    } else if (line == "@end") {
      text = nullptr;
    } else if (text != nullptr) {
      *text += line + "\n";
    }
  }
  for (const Mutant& mutant : mutants) {
    if (mutant.source.empty() || mutant.what.empty() || mutant.breaks.empty() ||
        mutant.before.empty() || mutant.before == mutant.after) {
      *error = path + ": mutant " + mutant.name + " is not complete";
    }
  }
  return mutants;
}

}  // namespace tripwire::conform

#endif  // TRIPWIRE_TESTS_CONFORMANCE_MUTANTS_H_

// SPDX-License-Identifier: BSD-3-Clause
// A promise in the documents names the test that checks it: the test must exist.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace {

std::string ReadFile(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::set<std::string> TestsInTheTree() {
  std::set<std::string> names;
  const std::regex declaration(
      R"(TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\s*\))");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           TRIPWIRE_ROOT "/tests")) {
    if (entry.path().extension() != ".cc") continue;
    const std::string text = ReadFile(entry.path());
    for (std::sregex_iterator it(text.begin(), text.end(), declaration), end;
         it != end; ++it) {
      names.insert((*it)[1].str() + "." + (*it)[2].str());
    }
  }
  return names;
}

TEST(Docs, EveryTestTheyNameExists) {
  const std::set<std::string> tests = TestsInTheTree();
  ASSERT_GT(tests.size(), 50u);
  const std::regex mention(R"(`([A-Z]\w+\.[A-Z]\w+)`)");
  for (const char* name :
       {"architecture", "memory-model", "wire-format", "threads"}) {
    const std::string text =
        ReadFile(std::string(TRIPWIRE_ROOT "/docs/") + name + ".md");
    EXPECT_FALSE(text.empty()) << name;
    for (std::sregex_iterator it(text.begin(), text.end(), mention), end;
         it != end; ++it) {
      EXPECT_TRUE(tests.contains((*it)[1].str()))
          << "docs/" << name << ".md names " << (*it)[1];
    }
  }
}

// A MUST without a test is a wish.
TEST(Docs, EveryPromiseOfTheMemoryModelNamesATest) {
  const std::string text = ReadFile(TRIPWIRE_ROOT "/docs/memory-model.md");
  const std::regex row(R"(\n\| (M\d+) \|([^\n]*))");
  const std::regex mention(R"(`[A-Z]\w+\.[A-Z]\w+`)");
  int promises = 0;
  for (std::sregex_iterator it(text.begin(), text.end(), row), end; it != end;
       ++it, ++promises) {
    const std::string promise = (*it)[2];
    EXPECT_NE(promise.find("MUST"), std::string::npos) << (*it)[1];
    EXPECT_TRUE(std::regex_search(promise, mention)) << (*it)[1];
  }
  EXPECT_GT(promises, 15);
}

// Statements of the wire format: each numbered once, binding, and checked.
TEST(Docs, EveryStatementOfTheWireFormatNamesATest) {
  const std::string text = ReadFile(TRIPWIRE_ROOT "/docs/wire-format.md");
  const std::regex row(R"(\n\| (W\d+) \|([^\n]*))");
  const std::regex mention(R"(`[A-Z]\w+\.[A-Z]\w+`)");
  std::set<std::string> numbers;
  for (std::sregex_iterator it(text.begin(), text.end(), row), end; it != end;
       ++it) {
    const std::string statement = (*it)[2];
    EXPECT_TRUE(numbers.insert((*it)[1]).second) << (*it)[1] << " twice";
    EXPECT_TRUE(std::regex_search(statement, std::regex("MUST|SHOULD|MAY")))
        << (*it)[1];
    EXPECT_TRUE(std::regex_search(statement, mention)) << (*it)[1];
  }
  EXPECT_GT(numbers.size(), 50u);
}

}  // namespace

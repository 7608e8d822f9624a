// SPDX-License-Identifier: BSD-3-Clause
// What listing a directory through a real mount costs, and tells.
#include <dirent.h>

#include <set>

#include "tests/unit/fuse-client/mounted_test.h"

namespace tripwire::fuse {
namespace {

class ListingTest : public MountedTest {
 protected:
  void SetUp() override {
    StartServer();
    one_ = MountOn(top_ + "/one");
    ASSERT_TRUE(one_);
    mkdir((top_ + "/tree/dir").c_str(), 0755);
  }
  void Make(int count) {
    for (int i = 0; i < count; ++i) {
      std::ofstream(top_ + "/tree/dir/a-name-of-some-length-" + std::to_string(i));
    }
  }
  uint64_t Listings() {
    for (const auto& [operation, count] : files_->calls_by_operation()) {
      if (operation == "readdir") return count;
    }
    return 0;
  }
  static std::set<std::string> Names(DIR* dir) {
    std::set<std::string> names;
    while (const dirent* entry = readdir(dir)) {
      EXPECT_TRUE(names.insert(entry->d_name).second) << entry->d_name;
    }
    return names;
  }
};

// The kernel asks a page at a time, for attributes with some pages and not with
// others.
TEST_F(ListingTest, OneOfHundredsOfNamesIsOneCall) {
  Make(100);
  for (int i = 0; i < 3; ++i) {
    const uint64_t before = Listings();
    DIR* dir = opendir((top_ + "/one/dir").c_str());
    ASSERT_NE(nullptr, dir);
    EXPECT_EQ(102u, Names(dir).size());
    EXPECT_EQ(1u, Listings() - before);
    closedir(dir);
  }
}

TEST_F(ListingTest, OneOfThousandsOfNamesTellsEachOnce) {
  Make(3000);
  const uint64_t before = Listings();
  DIR* dir = opendir((top_ + "/one/dir").c_str());
  ASSERT_NE(nullptr, dir);
  EXPECT_EQ(3002u, Names(dir).size());
  EXPECT_LE(Listings() - before, 3u);
  closedir(dir);
}

TEST_F(ListingTest, FromTheStartAgainItTellsWhatIsNew) {
  Make(10);
  DIR* dir = opendir((top_ + "/one/dir").c_str());
  ASSERT_NE(nullptr, dir);
  EXPECT_EQ(0u, Names(dir).count("new"));
  std::ofstream(top_ + "/tree/dir/new");
  rewinddir(dir);
  EXPECT_EQ(1u, Names(dir).count("new"));
  closedir(dir);
}

}  // namespace
}  // namespace tripwire::fuse

// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/aperture_table.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace tripwire {
namespace {

constexpr LinkId kLink{7};

class ApertureTableTest : public ::testing::Test {
 protected:
  OpStatus Check(const ApertureName& name, uint64_t offset, uint64_t length,
                 Access access = Access::kWrite, LinkId link = kLink) {
    ApertureEntry* entry = nullptr;
    const OpStatus status = table_.Check(link, name.handle, name.generation,
                                         access, offset, length, &entry);
    EXPECT_EQ(entry != nullptr, status == OpStatus::kOk);
    return status;
  }
  std::vector<uint8_t> memory_ = std::vector<uint8_t>(100);
  ApertureTable table_;
};

TEST_F(ApertureTableTest, BoundsHoldAlsoWhereArithmeticWraps) {
  const ApertureName name =
      table_.Export(memory_, Access::kWrite, std::nullopt);
  EXPECT_EQ(Check(name, 0, 100), OpStatus::kOk);
  EXPECT_EQ(Check(name, 100, 0), OpStatus::kOk);
  EXPECT_EQ(Check(name, 99, 1), OpStatus::kOk);
  EXPECT_EQ(Check(name, 0, 101), OpStatus::kOutOfBounds);
  EXPECT_EQ(Check(name, 100, 1), OpStatus::kOutOfBounds);
  EXPECT_EQ(Check(name, 101, 0), OpStatus::kOutOfBounds);
  EXPECT_EQ(Check(name, UINT64_MAX, 1), OpStatus::kOutOfBounds);
  EXPECT_EQ(Check(name, UINT64_MAX, 0), OpStatus::kOutOfBounds);
  EXPECT_EQ(Check(name, 1, UINT64_MAX), OpStatus::kOutOfBounds);
  EXPECT_EQ(Check(name, 50, UINT64_MAX - 49), OpStatus::kOutOfBounds);
  EXPECT_EQ(Check(name, UINT64_MAX - 9, 20), OpStatus::kOutOfBounds);
}

TEST_F(ApertureTableTest, RightsAreTheExportsAndOfItsLink) {
  const ApertureName write_only =
      table_.Export(memory_, Access::kWrite, std::nullopt);
  const ApertureName read_only =
      table_.Export(memory_, Access::kRead, std::nullopt);
  const ApertureName nothing =
      table_.Export(memory_, Access::kNone, std::nullopt);
  const ApertureName for_one = table_.Export(memory_, Access::kAny, LinkId{9});
  EXPECT_EQ(Check(write_only, 0, 1, Access::kWrite), OpStatus::kOk);
  EXPECT_EQ(Check(write_only, 0, 1, Access::kRead), OpStatus::kNoRights);
  EXPECT_EQ(Check(read_only, 0, 1, Access::kRead), OpStatus::kOk);
  EXPECT_EQ(Check(read_only, 0, 1, Access::kWrite), OpStatus::kNoRights);
  EXPECT_EQ(Check(nothing, 0, 0, Access::kRead), OpStatus::kNoRights);
  EXPECT_EQ(Check(for_one, 0, 1, Access::kRead, LinkId{9}), OpStatus::kOk);
  EXPECT_EQ(Check(for_one, 0, 1, Access::kRead, kLink), OpStatus::kNoRights);
}

TEST_F(ApertureTableTest, ANameNeverMeansTwoThings) {
  std::set<std::pair<uint32_t, uint32_t>> names;
  std::vector<ApertureName> old;
  for (int i = 0; i < 1000; ++i) {
    const ApertureName name =
        table_.Export(memory_, Access::kAny, std::nullopt);
    EXPECT_TRUE(names.insert({name.handle, name.generation}).second);
    EXPECT_EQ(Check(name, 0, 1), OpStatus::kOk);
    if (!old.empty()) {
      EXPECT_EQ(Check(old.back(), 0, 0), OpStatus::kStaleGeneration);
    }
    table_.Revoke(name.handle, name.generation);
    table_.Revoke(name.handle, name.generation);  // once more: nothing happens
    old.push_back(name);
  }
  const ApertureName live = table_.Export(memory_, Access::kAny, std::nullopt);
  EXPECT_EQ(live.handle, 0u) << "slots are used again";
  for (const ApertureName& name : old) {
    EXPECT_EQ(Check(name, 0, 1), OpStatus::kStaleGeneration);
    table_.Revoke(name.handle, name.generation);
  }
  EXPECT_EQ(Check(live, 0, 1), OpStatus::kOk);
}

TEST_F(ApertureTableTest, UnknownHandlesAreRefused) {
  ApertureName name = table_.Export(memory_, Access::kAny, std::nullopt);
  name.handle = 1;
  EXPECT_EQ(Check(name, 0, 1), OpStatus::kBadHandle);
  name.handle = UINT32_MAX;
  EXPECT_EQ(Check(name, 0, 1), OpStatus::kBadHandle);
  EXPECT_EQ(table_.Find(UINT32_MAX, 1), nullptr);
  name.handle = 0;
  for (const uint32_t generation : {0u, 2u, UINT32_MAX}) {
    name.generation = generation;
    EXPECT_EQ(Check(name, 0, 1), OpStatus::kStaleGeneration);
  }
}

TEST_F(ApertureTableTest, NamesSurviveSerialising) {
  const ApertureName name{0x01020304, 0x05060708, 0x1122334455667788,
                          Access::kRead};
  uint8_t bytes[ApertureName::kWireBytes];
  name.Serialize(bytes);
  EXPECT_EQ(bytes[0], 4);
  EXPECT_EQ(bytes[8], 0x88);
  const ApertureName back = ApertureName::Parse(bytes);
  EXPECT_EQ(back.handle, name.handle);
  EXPECT_EQ(back.generation, name.generation);
  EXPECT_EQ(back.length_bytes, name.length_bytes);
  EXPECT_EQ(back.rights, name.rights);
  std::fill(std::begin(bytes), std::end(bytes), 0xff);
  EXPECT_EQ(ApertureName::Parse(bytes).rights, Access::kAny);
}

}  // namespace
}  // namespace tripwire

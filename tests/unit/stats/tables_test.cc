// SPDX-License-Identifier: BSD-3-Clause
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "nic/api/nic_tables.h"
#include "nic/api/stats/counters.h"
#include "nic/tools/printable.h"
#include "tests/sim/sim_pair.h"

namespace tripwire::stats {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

const Table& Named(const std::vector<Table>& tables, const std::string& name) {
  for (const Table& table : tables) {
    if (table.name == name) return table;
  }
  ADD_FAILURE() << "no table " << name;
  static const Table none;
  return none;
}

// The cell of this row and column as text.
std::string At(const Table& table, size_t row, const std::string& column) {
  const auto it = std::find(table.columns.begin(), table.columns.end(), column);
  if (it == table.columns.end() || row >= table.rows.size()) return "none";
  const Cell& cell =
      table.rows[row][static_cast<size_t>(it - table.columns.begin())];
  if (const auto* number = std::get_if<uint64_t>(&cell)) {
    return std::to_string(*number);
  }
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  return std::get<bool>(cell) ? "yes" : "no";
}

class TablesTest : public ::testing::Test {
 protected:
  TablesTest() : net_(1), pair_(net_) { pair_.Connect(); }

  void Write(const RemoteAperture& to, uint64_t offset, size_t bytes) {
    Completion done;
    const std::vector<uint8_t> data(bytes, 7);
    ASSERT_TRUE(pair_.left->Write(to, offset, data, &done).ok());
    ASSERT_TRUE(net_.RunUntil([&] { return done.done(); }, kSecond));
  }

  std::vector<uint8_t> memory_ = std::vector<uint8_t>(1 << 20);
  SimNetwork net_;
  Pair pair_;
};

TEST_F(TablesTest, ALinkIsToldFromBothEnds) {
  Aperture aperture = pair_.right->Export(memory_, Access::kWrite);
  const RemoteAperture remote =
      pair_.left->Import(pair_.left_link, aperture.name());
  for (int i = 0; i < 3; ++i) Write(remote, 0, 10'000);
  net_.RunFor(kSecond);
  const NicTables left = ReadTables(pair_.left_nic, 10);
  const NicTables right = ReadTables(pair_.right_nic, 10);
  ASSERT_THAT(left.links, SizeIs(1));
  ASSERT_THAT(right.links, SizeIs(1));
  EXPECT_EQ(left.links[0].id, pair_.left_link);
  EXPECT_STREQ(left.links[0].state, "open");
  EXPECT_EQ(left.links[0].node, "right");
  EXPECT_EQ(right.links[0].node, "left");
  EXPECT_EQ(right.links[0].service, "svc");
  // Eight frames of at most 1514 bytes for each write.
  EXPECT_EQ(left.links[0].sent_frames, 24u);
  EXPECT_EQ(right.links[0].received_frames, 24u);
  EXPECT_EQ(right.links[0].sent_frames, left.links[0].received_frames);
  EXPECT_GE(left.links[0].rtt_ns, 2 * kMicrosecond);
  EXPECT_GE(left.links[0].window_frames, 8u);
  EXPECT_EQ(left.links[0].in_flight_frames, 0u);
  EXPECT_EQ(left.links[0].queued_operations, 0u);
  EXPECT_EQ(left.links[0].retransmitted_frames, 0u);
}

TEST_F(TablesTest, WhatIsUnderWayAndSentAgainIsSeen) {
  Aperture aperture = pair_.right->Export(memory_, Access::kWrite);
  const RemoteAperture remote =
      pair_.left->Import(pair_.left_link, aperture.name());
  net_.port(1).SetStalled(true);
  std::deque<Completion> done(5);
  for (Completion& completion : done) {
    ASSERT_TRUE(
        pair_.left->Write(remote, 0, std::span(memory_).first(100), &completion)
            .ok());
  }
  net_.RunFor(100 * kMillisecond);
  NicTables left = ReadTables(pair_.left_nic, 10);
  EXPECT_EQ(left.links[0].queued_operations, 5u);
  EXPECT_GT(left.links[0].retransmitted_frames, 0u);
  EXPECT_GT(left.links[0].in_flight_frames, 0u);
  net_.port(1).SetStalled(false);
  ASSERT_TRUE(net_.RunUntil([&] { return done.back().done(); }, 10 * kSecond));
}

TEST_F(TablesTest, AperturesAndTripwiresAreToldWithTheirCounts) {
  Aperture a = pair_.right->Export(std::span(memory_).first(4096),
                                   Access::kWrite | Access::kRead);
  Aperture b = pair_.right->Export(std::span(memory_).subspan(4096, 8192),
                                   Access::kWrite, pair_.right_link);
  const RemoteAperture to_a = pair_.left->Import(pair_.left_link, a.name());
  const RemoteAperture to_b = pair_.left->Import(pair_.left_link, b.name());
  Tripwire once =
      pair_.right->Watch(a, 0, 8, Access::kWrite, TripwireMode::kOneShot, 1);
  Tripwire always = pair_.right->Watch(b, 64, 128, Access::kAny,
                                       TripwireMode::kPersistent, 2);
  Tripwire out = pair_.left->Watch(to_b, 0, 8192, Access::kWrite,
                                   TripwireMode::kPersistent, 3);
  for (Tripwire* tripwire : {&once, &always, &out}) tripwire->Arm();
  for (int i = 0; i < 4; ++i) Write(to_b, 100, 3000);
  for (int i = 0; i < 2; ++i) Write(to_a, 0, 8);
  ApertureName longer = a.name();  // a lie: what goes beyond is refused there
  longer.length_bytes = 8192;
  Completion beyond;
  ASSERT_TRUE(pair_.left
                  ->Write(pair_.left->Import(pair_.left_link, longer), 4090,
                          std::span(memory_).first(8), &beyond)
                  .ok());
  ASSERT_TRUE(net_.RunUntil([&] { return beyond.done(); }, kSecond));
  Completion read;
  std::vector<uint8_t> into(500);
  ASSERT_TRUE(pair_.left->Read(to_a, 1000, into, &read).ok());
  ASSERT_TRUE(net_.RunUntil([&] { return read.done(); }, kSecond));

  const auto right = Tables(pair_.right_nic, 10);
  const Table& apertures = Named(right, "apertures");
  ASSERT_THAT(apertures.rows, SizeIs(2));
  EXPECT_EQ(apertures.all, 2u);
  EXPECT_EQ(At(apertures, 0, "accesses"), "4");
  EXPECT_EQ(At(apertures, 0, "bytes"), "12000");
  EXPECT_EQ(At(apertures, 0, "bytes_long"), "8192");
  EXPECT_EQ(At(apertures, 0, "rights"), "write");
  EXPECT_EQ(At(apertures, 0, "only_link"),
            At(Named(right, "links"), 0, "link"));
  EXPECT_EQ(At(apertures, 1, "accesses"), "3");
  EXPECT_EQ(At(apertures, 1, "bytes"), "516");
  EXPECT_EQ(At(apertures, 1, "rights"), "write+read");
  EXPECT_EQ(At(apertures, 1, "only_link"), "any");
  const Table& tripwires = Named(right, "tripwires");
  ASSERT_THAT(tripwires.rows, SizeIs(2));
  EXPECT_EQ(At(tripwires, 0, "count"), "4");
  EXPECT_EQ(At(tripwires, 0, "untold"), "4");
  EXPECT_EQ(At(tripwires, 0, "offset"), "64");
  EXPECT_EQ(At(tripwires, 0, "bytes_long"), "128");
  EXPECT_EQ(At(tripwires, 0, "way"), "in-bound");
  EXPECT_EQ(At(tripwires, 0, "mode"), "persistent");
  EXPECT_EQ(At(tripwires, 0, "armed"), "yes");
  EXPECT_EQ(At(tripwires, 0, "aperture"), At(apertures, 0, "aperture"));
  EXPECT_EQ(At(tripwires, 1, "count"), "1");
  EXPECT_EQ(At(tripwires, 1, "armed"), "no");
  EXPECT_EQ(At(tripwires, 1, "mode"), "one-shot");
  const Table left = Named(Tables(pair_.left_nic, 10), "tripwires");
  ASSERT_THAT(left.rows, SizeIs(1));
  EXPECT_EQ(At(left, 0, "way"), "out-bound");
  EXPECT_EQ(At(left, 0, "count"), "4");
  uint64_t refused_bounds = 0;
  for (const Group& group : Groups(pair_.right_nic)) {
    for (const Counter& counter : group.counters) {
      if (group.name == "refused" && counter.name == "bounds") {
        refused_bounds = counter.value;
      }
    }
  }
  EXPECT_EQ(refused_bounds, 1u);
}

TEST_F(TablesTest, OfThousandsTheMostActiveAreShown) {
  Aperture aperture = pair_.right->Export(memory_, Access::kWrite);
  const RemoteAperture remote =
      pair_.left->Import(pair_.left_link, aperture.name());
  std::deque<Tripwire> tripwires;
  for (uint64_t i = 0; i < 3000; ++i) {
    tripwires.push_back(pair_.right->Watch(aperture, i * 8, 8, Access::kWrite,
                                           TripwireMode::kPersistent, i));
    tripwires.back().Arm();
  }
  for (int i = 0; i < 3; ++i) Write(remote, 2000 * 8, 8);
  for (int i = 0; i < 2; ++i) Write(remote, 10 * 8, 8);
  Write(remote, 2999 * 8, 8);
  const auto offsets = [&](size_t limit) {
    const NicTables tables = ReadTables(pair_.right_nic, limit);
    EXPECT_EQ(tables.all_tripwires, tripwires.size());
    std::vector<uint64_t> offsets;
    for (const TripwireStats& t : tables.tripwires) {
      offsets.push_back(t.offset / 8);
    }
    return offsets;
  };
  EXPECT_THAT(offsets(4), ElementsAre(2000, 10, 2999, 0));
  EXPECT_THAT(offsets(0), ElementsAre());
  EXPECT_THAT(offsets(100'000), SizeIs(3000));
  tripwires.erase(tripwires.begin() + 2000);  // what is gone is not told
  EXPECT_THAT(offsets(2), ElementsAre(10, 2999));
}

TEST_F(TablesTest, WhatEndedIsNotTold) {
  Aperture aperture = pair_.right->Export(memory_, Access::kWrite);
  EXPECT_EQ(ReadTables(pair_.right_nic, 10).all_apertures, 1u);
  aperture.Revoke();
  EXPECT_EQ(ReadTables(pair_.right_nic, 10).all_apertures, 0u);
  pair_.right.reset();
  pair_.left.reset();
  net_.RunFor(kSecond);
  EXPECT_EQ(ReadTables(pair_.right_nic, 10).all_links, 0u);
  EXPECT_EQ(ReadTables(pair_.left_nic, 10).all_links, 0u);
}

TEST(ToolsPrintable, LetsNoControlCharacterThroughToTheTerminal) {
  EXPECT_EQ(tools::Printable("a\x1b[2J\x7f"), "a?[2J?");
  EXPECT_EQ(tools::Printable("\xc2\x9b"
                             "2J"),
            "?2J")
      << "CSI, as C1";
  EXPECT_EQ(tools::Printable("\xc2\x80\xc2\x9f\xc2\xa0"), "??\xc2\xa0");
  EXPECT_EQ(tools::Printable("\x9b\xff"), "??") << "no UTF-8";
  EXPECT_EQ(tools::Printable("\xc3\xa9\xe2\x82\xac"), "\xc3\xa9\xe2\x82\xac");
}

}  // namespace
}  // namespace tripwire::stats

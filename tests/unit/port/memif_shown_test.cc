// SPDX-License-Identifier: BSD-3-Clause
// What a member of a memif shows to its listener.
#include <gtest/gtest.h>

#include <cstdint>
#include <span>

#include "nic/port/memif_port.h"
#include "tests/unit/port/frames.h"
#include "tests/unit/port/memif_fixture.h"

namespace tripwire {
namespace {

using testing::SendText;

TEST_F(MemifTest, AListenerReadsWhatItsMembersShow) {
  Listen();
  EXPECT_TRUE(listener_->ShownMemory().empty());
  auto first = Join();
  MemifOptions options = Options();
  options.shown_bytes = 0;
  auto second = Join(options);
  EXPECT_TRUE(second->ShownMemory().empty());
  const std::span<uint8_t> shown = first->ShownMemory();
  ASSERT_EQ(shown.size(), Options().shown_bytes);
  shown.front() = 1;
  shown.back() = 2;
  PathId first_path, second_path;
  SendText(*first, listener_->info().mac, "a");
  ASSERT_EQ(Next(*listener_, &first_path), "a");
  SendText(*second, listener_->info().mac, "b");
  ASSERT_EQ(Next(*listener_, &second_path), "b");
  EXPECT_TRUE(listener_->ShownBy(second_path).bytes.empty());
  PeerMemory seen = listener_->ShownBy(first_path);
  ASSERT_EQ(seen.bytes.size(), shown.size());
  EXPECT_EQ(seen.bytes.front(), 1);
  EXPECT_EQ(seen.bytes.back(), 2);
  shown.front() = 3;
  EXPECT_EQ(seen.bytes.front(), 3);
  // What is held stays there, also when its owner is gone.
  first.reset();
  EXPECT_TRUE(Until([&] { return listener_->ShownBy(first_path).bytes.empty(); }));
  EXPECT_EQ(seen.bytes.front(), 3);
}

}  // namespace
}  // namespace tripwire

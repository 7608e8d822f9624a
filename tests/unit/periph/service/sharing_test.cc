// SPDX-License-Identifier: BSD-3-Clause
// Many users of one device: who shares what, who keeps whom out, who is hurt by whom.
#include "absl/strings/str_cat.h"
#include "tests/unit/periph/service/service_test.h"

namespace tripwire::periph {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using SharingTest = ServiceTest;

TEST_F(SharingTest, OneSourceFeedsAllAndEndsAfterTheLast) {
  StartServer();
  auto user = Connect(), other = Connect();
  auto first = Open(*user), second = Open(*other);
  ASSERT_TRUE(cam_.AwaitSources(1));
  ASSERT_TRUE(cam_.Emit("one"));
  EXPECT_EQ(Next(*first), "one");
  EXPECT_EQ(Next(*second), "one");
  EXPECT_EQ(first->format(), "test/bytes");
  first.reset();
  ASSERT_TRUE(cam_.Emit("two"));
  EXPECT_EQ(Next(*second), "two");
  EXPECT_EQ(cam_.starts(), 1u);
  second.reset();
  EXPECT_TRUE(cam_.AwaitSources(0));
  auto third = Open(*user);
  ASSERT_TRUE(cam_.AwaitSources(1));
  EXPECT_EQ(cam_.starts(), 2u);
}

TEST_F(SharingTest, FramesCarryTheirNumbersTimesAndLosses) {
  auto stream = StartStream();
  cam_.Emit("a");
  cam_.Overrun(3);
  const uint64_t before_ns = cam_.clock.NowNs();
  cam_.Emit("b");
  auto a = stream->Next(Soon());
  auto b = stream->Next(Soon());
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(b->frame().number - a->frame().number, 4u);
  EXPECT_EQ(b->frame().overrun, 3u);
  EXPECT_GE(b->frame().capture_ns, before_ns);
  EXPECT_LE(b->frame().capture_ns, b->arrival_ns());  // both NICs use the system's clock
  EXPECT_EQ(stream->counters().overrun, 3u);
  EXPECT_EQ(stream->counters().lost, 0u);
}

TEST_F(SharingTest, AFormatThatCannotBeHadIsRefused) {
  StartServer();
  auto user = Connect();
  const auto stream = user->OpenSource("cam", {.format = "test/other"});
  EXPECT_EQ(stream.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(stream.status().message()), HasSubstr("test/other"));
  EXPECT_EQ(user->OpenSource("none", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SharingTest, ADeviceWithOneFormatAtATimeIsBusyInAnother) {
  cam_.formats = {"test/bytes", "test/other"};
  StartServer();
  auto user = Connect(), other = Connect();
  auto stream = Open(*user, {.format = "test/bytes"});
  const auto busy = other->OpenSource("cam", {.format = "test/other"});
  EXPECT_EQ(busy.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(busy.status().message()), HasSubstr("test/bytes"));
  EXPECT_TRUE(other->OpenSource("cam", {}).ok());
  stream.reset();
  EXPECT_TRUE(other->OpenSource("cam", {.format = "test/other"}).ok());
}

TEST_F(SharingTest, ADeviceWithManyFormatsHasASourceForEach) {
  cam_.formats = {"test/bytes", "test/other"};
  cam_.many_formats = true;
  StartServer();
  auto user = Connect();
  auto bytes = Open(*user, {.format = "test/bytes"});
  auto other = Open(*user, {.format = "test/other"});
  ASSERT_TRUE(cam_.AwaitSources(2));
  cam_.Emit("b", "test/bytes");
  cam_.Emit("o", "test/other");
  EXPECT_EQ(Next(*bytes), "b");
  EXPECT_EQ(Next(*other), "o");
}

TEST_F(SharingTest, ExclusiveKeepsOtherUsersOut) {
  StartServer();
  auto user = Connect(), other = Connect();
  auto mine = Open(*user, {.exclusive = true});
  const auto theirs = other->OpenSource("cam", {});
  EXPECT_EQ(theirs.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(theirs.status().message()), HasSubstr("client"));
  EXPECT_TRUE(user->OpenSource("cam", {}).ok());  // openings of one user do not
  auto info = other->Info("cam");
  // The end of the second opening has to get there.
  while (info.ok() && info->users_size() > 1) info = other->Info("cam");
  ASSERT_TRUE(info.ok());
  EXPECT_TRUE(info->exclusive());
  ASSERT_THAT(info->users(), SizeIs(1));
  EXPECT_EQ(info->users(0).node(), "client");
  EXPECT_EQ(info->users(0).program(), "test");
  mine.reset();
  // Its link's end has to get there.
  while (!other->OpenSource("cam", {.exclusive = true}).ok()) std::this_thread::yield();
}

TEST_F(SharingTest, WhoHasADeviceForHimselfAloneChangesItsSettings) {
  StartServer();
  auto user = Connect(), other = Connect();
  const auto gain = [&](Peripherals& peripherals) {
    const auto controls = peripherals.Controls("cam");
    return controls.ok() ? controls->at(0).value : controls.status().ToString();
  };
  auto mine = Open(*user, {.exclusive = true});
  EXPECT_TRUE(user->SetControl("cam", "gain", "2").ok());
  const absl::Status refused = other->SetControl("cam", "gain", "1");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(refused.message(),
            "the settings of device 'cam' cannot be changed, it is busy: client (test) has it for itself");
  // Everybody sees them.
  EXPECT_EQ(gain(*user), "2");
  EXPECT_EQ(gain(*other), "2");
  mine.reset();
  // Its link's end has to get there.
  while (!other->SetControl("cam", "gain", "1").ok()) std::this_thread::yield();
  EXPECT_EQ(gain(*user), "1");
}

TEST_F(SharingTest, WhoSharesADeviceMayChangeItsSettings) {
  StartServer();
  auto user = Connect(), other = Connect();
  auto mine = Open(*user), theirs = Open(*other);
  EXPECT_TRUE(user->SetControl("cam", "gain", "2").ok());
  EXPECT_TRUE(other->SetControl("cam", "gain", "1").ok());
  EXPECT_EQ(cam_.settings["gain"], "1");
}

TEST_F(SharingTest, ExclusiveIsNotHadOfADeviceInUse) {
  StartServer();
  auto user = Connect(), other = Connect();
  auto mine = Open(*user);
  const auto theirs = other->OpenSource("cam", {.exclusive = true});
  EXPECT_EQ(theirs.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SharingTest, RulesOfAccessHold) {
  StartServer({.read_only = true});
  auto user = Connect();
  EXPECT_TRUE(user->OpenSource("cam", {}).ok());
  EXPECT_EQ(user->OpenSink("cam", {}).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(user->SetControl("cam", "gain", "2").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(cam_.settings["gain"], "1");
  const auto info = user->Info("cam");
  ASSERT_TRUE(info.ok());
  EXPECT_TRUE(info->read_only());
  EXPECT_THAT(info->sink_formats(), IsEmpty());
}

TEST_F(SharingTest, OnlyTheNodesOfTheRulesSeeADevice) {
  StartServer({.nodes = {"friend", "server"}});
  auto user = Connect();
  EXPECT_EQ(user->OpenSource("cam", {}).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(user->Info("cam").status().code(), absl::StatusCode::kPermissionDenied);
  const auto list = user->List();
  ASSERT_TRUE(list.ok());
  EXPECT_THAT(*list, IsEmpty());
}

TEST_F(SharingTest, AnExclusiveDeviceHasOneUserAtATime) {
  StartServer({.exclusive = true});
  auto user = Connect(), other = Connect();
  auto mine = Open(*user);
  EXPECT_EQ(other->OpenSource("cam", {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SharingTest, ASlowUserHurtsNobodyElse) {
  constexpr uint64_t kFrames = 2000;
  StartServer();
  auto user = Connect(), other = Connect();
  auto slow = Open(*user, {.policy = Policy::kDropOldest, .queue_frames = 3, .slots = 2});
  auto newest = Open(*user, {.policy = Policy::kDropNewest, .queue_frames = 3, .slots = 2});
  auto fast = Open(*other, {.slots = 4});
  ASSERT_TRUE(cam_.AwaitSources(1));
  for (uint64_t i = 0; i < kFrames; ++i) {
    ASSERT_TRUE(cam_.Emit(absl::StrCat(i)));
    ASSERT_EQ(Next(*fast), absl::StrCat(i));
  }
  EXPECT_EQ(fast->counters().dropped, 0u);
  // Those who slept find their slots and what waited for them: the end, or the beginning.
  EXPECT_EQ(Next(*slow), "0");
  EXPECT_EQ(Next(*slow), "1");
  for (uint64_t i = kFrames - 3; i < kFrames; ++i) EXPECT_EQ(Next(*slow), absl::StrCat(i));
  EXPECT_EQ(slow->counters().dropped, kFrames - 5);
  EXPECT_EQ(slow->counters().lost, 0u);
  for (uint64_t i = 0; i < 5; ++i) EXPECT_EQ(Next(*newest), absl::StrCat(i));
  cam_.Emit("last");
  EXPECT_EQ(Next(*newest), "last");
  EXPECT_EQ(newest->counters().dropped, kFrames - 5);
}

TEST_F(SharingTest, BlockLosesNothing) {
  constexpr uint64_t kFrames = 2000;
  auto stream = StartStream(Block(2));
  std::thread source([&] {
    for (uint64_t i = 0; i < kFrames; ++i) cam_.Emit(absl::StrCat(i));
  });
  for (uint64_t i = 0; i < kFrames; ++i) ASSERT_EQ(Next(*stream), absl::StrCat(i));
  source.join();
  EXPECT_EQ(stream->counters().received, kFrames);
  EXPECT_EQ(stream->counters().dropped, 0u);
}

TEST_F(SharingTest, BlockIsForExclusiveUseOnly) {
  StartServer();
  auto user = Connect();
  const auto stream = user->OpenSource("cam", {.policy = Policy::kBlock});
  EXPECT_EQ(stream.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(stream.status().message()), HasSubstr("exclusive"));
}

TEST_F(SharingTest, ABlockedSourceIsFreeWhenItsUserGoes) {
  auto stream = StartStream(Block(2));
  std::thread source([&] {
    while (cam_.Emit("frame")) {
    }
  });
  EXPECT_EQ(Next(*stream), "frame");
  stream.reset();
  source.join();
  EXPECT_TRUE(cam_.AwaitSources(0));
}

TEST_F(SharingTest, WhoVanishesCostsNothingButHisOwnStream) {
  auto stays = StartStream({.slots = 16});
  std::atomic<bool> stop{false};
  std::thread source([&] {
    while (!stop) cam_.Emit("frame");
  });
  // At every moment of a stream's life.
  for (int i = 0; i < 40; ++i) {
    auto goes = Connect();
    auto stream = goes->OpenSource("cam", {.slots = 2});
    ASSERT_TRUE(stream.ok()) << stream.status();
    for (int taken = 0; taken < i % 4; ++taken) EXPECT_EQ(Next(**stream), "frame");
    if (i % 2 == 0) goes.reset();
    EXPECT_EQ(Next(*stays), "frame");
  }
  stop = true;
  source.join();
  EXPECT_EQ(cam_.starts(), 1u);
}

TEST_F(SharingTest, AUserWhoseCableIsOutIsForgotten) {
  auto stream = StartStream();
  wire_.SetCut(true);
  EXPECT_TRUE(cam_.AwaitSources(0));
  wire_.SetCut(false);
  ASSERT_TRUE(cam_.AwaitSources(0));
}

TEST_F(SharingTest, StatCountsEachStream) {
  StartServer();
  auto user = Connect(), other = Connect();
  auto stream = Open(*user, {.policy = Policy::kDropNewest});
  auto theirs = Open(*other);
  ASSERT_TRUE(cam_.AwaitSources(1));
  cam_.Emit("12345");
  EXPECT_EQ(Next(*stream), "12345");
  const auto stat = user->Stat("cam");
  ASSERT_TRUE(stat.ok());
  ASSERT_THAT(stat->streams(), SizeIs(2));
  EXPECT_EQ(stat->streams(0).policy(), "drop-newest");
  EXPECT_EQ(stat->streams(0).sent(), 1u);
  EXPECT_EQ(stat->streams(0).bytes(), 5u);
  EXPECT_NE(stat->streams(0).user().user(), 0u);
  EXPECT_EQ(stat->streams(1).user().user(), 0u);  // not ours to know
  EXPECT_EQ(user->Stat("none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace tripwire::periph

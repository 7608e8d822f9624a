// SPDX-License-Identifier: BSD-3-Clause
// The small parts of the mount, each by itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>

#include "fuse-client/caller_groups.h"
#include "fuse-client/interrupts.h"
#include "fuse-client/invalidator.h"
#include "fuse-client/mount_table.h"
#include "fuse-client/recall_log.h"
#include "fuse-client/unstable_data.h"

namespace tripwire::fuse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(CallerGroups, ParsesTheLine) {
  std::vector<uint32_t> groups;
  CallerGroups::Parse("Name:\tx\nGroups:\t4 20 4294967294 \nNStgid:\t1\n", &groups);
  EXPECT_THAT(groups, ElementsAre(4u, 20u, 4294967294u));
  for (const char* text : {"", "Groups:\t1\n", "Name:\nGroups:\n", "Name:\nGroups:"}) {
    CallerGroups::Parse(text, &groups);
    EXPECT_THAT(groups, IsEmpty()) << text;
  }
  CallerGroups::Parse("x\nGroups:\t1 oops 2\n", &groups);
  EXPECT_THAT(groups, ElementsAre(1u));
}

TEST(CallerGroups, AreThoseOfTheCallerNow) {
  CallerGroups groups;
  gid_t mine[256];
  const int count = getgroups(256, mine);
  ASSERT_GE(count, 0);
  const pid_t tid = static_cast<pid_t>(syscall(SYS_gettid));
  for (int i = 0; i < 3; ++i) {
    std::vector<uint32_t> found;
    groups.Get(tid, &found);
    EXPECT_EQ(static_cast<size_t>(count), found.size());
  }
  std::vector<uint32_t> found = {1};
  groups.Get(0, &found);
  EXPECT_THAT(found, IsEmpty());
  groups.Get(0x7ffffff0, &found);
  EXPECT_THAT(found, IsEmpty());
}

std::string Status(uint64_t pending, uint64_t blocked, uint64_t ignored, uint64_t caught) {
  char text[256];
  snprintf(text, sizeof(text),
           "Name:\tx\nSigPnd:\t%016llx\nShdPnd:\t%016llx\nSigBlk:\t%016llx\n"
           "SigIgn:\t%016llx\nSigCgt:\t%016llx\n",
           0ull, static_cast<unsigned long long>(pending),
           static_cast<unsigned long long>(blocked),
           static_cast<unsigned long long>(ignored),
           static_cast<unsigned long long>(caught));
  return text;
}

uint64_t Bit(int signal) { return uint64_t{1} << (signal - 1); }

TEST(Interrupts, WhichSignalsEndAWait) {
  EXPECT_FALSE(Interrupts::EndsWait(Status(0, 0, 0, 0)));
  EXPECT_TRUE(Interrupts::EndsWait(Status(Bit(SIGKILL), 0, 0, 0)));
  EXPECT_TRUE(Interrupts::EndsWait(Status(Bit(SIGINT), 0, 0, Bit(SIGINT))));
  EXPECT_TRUE(Interrupts::EndsWait(Status(Bit(SIGUSR1), 0, 0, 0))) << "fatal by default";
  // What programs do not expect to interrupt file operations.
  EXPECT_FALSE(Interrupts::EndsWait(Status(Bit(SIGALRM), 0, 0, Bit(SIGALRM))));
  EXPECT_FALSE(Interrupts::EndsWait(Status(Bit(SIGCHLD), 0, 0, 0)));
  EXPECT_FALSE(Interrupts::EndsWait(Status(Bit(SIGURG), 0, 0, Bit(SIGURG))));
  EXPECT_FALSE(Interrupts::EndsWait(Status(Bit(SIGTERM), Bit(SIGTERM), 0, 0)));
  EXPECT_FALSE(Interrupts::EndsWait(Status(Bit(SIGHUP), 0, Bit(SIGHUP), 0)));
  EXPECT_FALSE(Interrupts::EndsWait("garbage"));
}

TEST(Interrupts, ACallerThatIsGoneIsNotWaitedFor) {
  Interrupts interrupts;
  rpc::CancelToken token;
  std::atomic<bool> cancelled{false};
  token.state->hook = [&] { cancelled = true; };
  interrupts.Watch(&token, 0x7ffffff0, &token);
  for (int i = 0; i < 1000 && !cancelled; ++i) usleep(10000);
  EXPECT_TRUE(cancelled);
  interrupts.Unwatch(&token);
}

TEST(RecallLog, TellsWhatWasRecalledSince) {
  RecallLog log;
  const uint64_t start = log.Now();
  {
    MutexLock lock(&log.gate);
    log.Note("a");
  }
  const uint64_t after_a = log.Now();
  MutexLock lock(&log.gate);
  EXPECT_TRUE(log.RecalledSince(start, "a"));
  EXPECT_FALSE(log.RecalledSince(start, "b"));
  EXPECT_FALSE(log.RecalledSince(after_a, "a"));
  log.NoteAll();
  EXPECT_TRUE(log.RecalledSince(after_a, "b"));
  const uint64_t after_all = log.Now();
  EXPECT_FALSE(log.RecalledSince(after_all, "b"));
  for (int i = 0; i < 5000; ++i) log.Note("x");
  EXPECT_TRUE(log.RecalledSince(after_all, "never seen")) << "too long ago to know";
}

TEST(Invalidator, RunsWaitsAndGivesUp) {
  Invalidator invalidator;
  std::atomic<int> done{0};
  EXPECT_TRUE(invalidator.Run([&] { ++done; }, [] { return false; }));
  EXPECT_EQ(1, done);
  std::atomic<bool> release{false};
  EXPECT_FALSE(invalidator.Run(
      [&] {
        while (!release) usleep(1000);
        ++done;
      },
      [] { return true; }));
  EXPECT_TRUE(invalidator.Run([&] { ++done; }, [] { return false; })) << "not held up";
  release = true;
  invalidator.Stop();
  EXPECT_EQ(3, done);
  EXPECT_FALSE(invalidator.Run([&] { ++done; }, [] { return false; }));
}

TEST(MountTable, FindsTheTopmostMount) {
  const std::string table =
      "22 1 0:20 / / rw - ext4 /dev/vda rw\n"
      "40 22 0:41 / /mnt/a rw,nosuid - fuse.tripwire host:data rw\n"
      "41 40 0:42 / /mnt/a rw - tmpfs tmpfs rw\n"
      "42 22 0:43 / /mnt/with\\040space rw - fuse.tripwire host:x rw\n"
      "broken line\n\n";
  EXPECT_EQ("0:42", DeviceOfMount(table, "/mnt/a"));
  EXPECT_EQ("0:43", DeviceOfMount(table, "/mnt/with space"));
  EXPECT_EQ("", DeviceOfMount(table, "/mnt"));
  EXPECT_EQ("", DeviceOfMount("", "/mnt/a"));
}

TEST(MountTable, MountPointsAreChecked) {
  char dir[] = "/tmp/tw-mounttable-XXXXXX";
  ASSERT_NE(nullptr, mkdtemp(dir));
  const std::string base = dir;
  EXPECT_EQ(base, *CheckMountPoint(base));
  EXPECT_EQ(base, *CheckMountPoint(base + "/"));
  auto missing = CheckMountPoint(base + "/missing");
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr(base + "/missing"));
  EXPECT_FALSE(CheckMountPoint(base + "/no/such").ok());
  EXPECT_FALSE(CheckMountPoint("").ok());
  const std::string file = base + "/file";
  ASSERT_EQ(0, mknod(file.c_str(), S_IFREG | 0644, 0));
  EXPECT_THAT(std::string(CheckMountPoint(file).status().message()),
              HasSubstr("not a directory"));
  ASSERT_EQ(0, symlink(dir, (base + "/link").c_str()));
  EXPECT_EQ(base, *CheckMountPoint(base + "/link"));
  unlink((base + "/link").c_str());
  unlink(file.c_str());
  rmdir(dir);
}

class UnstableTest : public ::testing::Test {
 protected:
  UnstableTest() : data_(&nodes_, 1 << 20) {
    Node* root = nodes_.Get(NodeTable::kRootId);
    a_ = nodes_.Enter({"a", 10, 1, S_IFREG}, root, "a");
    b_ = nodes_.Enter({"b", 11, 1, S_IFREG}, root, "b");
  }
  void Add(Node* node, uint64_t offset, const std::string& text, uint64_t verifier = 1) {
    UnstableData::Segment segment;
    segment.verifier = verifier;
    segment.offset = offset;
    segment.length = text.size();
    segment.buffer = MallocBuffer(text.size() + 1);
    memcpy(segment.buffer.get(), text.data(), text.size());
    data_.Add(node, std::move(segment));
  }
  UnstableData::Resend Log() {
    return [this](Node& node, const UnstableData::Segment& s) {
      sent_.push_back(node.Handle() + "@" + std::to_string(s.offset) + ":" +
                      std::string(s.data(), s.length));
      return resend_error_;
    };
  }
  NodeTable nodes_;
  UnstableData data_;
  Node* a_;
  Node* b_;
  int resend_error_ = 0;
  std::vector<std::string> sent_;
};

TEST_F(UnstableTest, ACommitMakesItDurable) {
  Add(a_, 0, "one");
  Add(b_, 5, "two");
  EXPECT_EQ(6u, data_.bytes());
  EXPECT_EQ(0, data_.Committed(a_, 0, data_.Mark(), 1, Log()));
  EXPECT_FALSE(data_.Has(a_));
  EXPECT_TRUE(data_.Has(b_));
  EXPECT_EQ(0, data_.Committed(nullptr, 1, data_.Mark(), 1, Log()));
  EXPECT_EQ(0u, data_.bytes());
  EXPECT_THAT(sent_, IsEmpty());
}

TEST_F(UnstableTest, WhatCameAfterTheMarkStays) {
  Add(a_, 0, "one");
  const uint64_t mark = data_.Mark();
  Add(a_, 10, "two");
  data_.Committed(a_, 0, mark, 1, Log());
  EXPECT_EQ(3u, data_.bytes());
}

TEST_F(UnstableTest, AnotherVerifierMeansSendingAgainInOrder) {
  Add(a_, 0, "one");
  Add(a_, 1, "TWO");
  EXPECT_EQ(0, data_.Committed(a_, 0, data_.Mark(), 2, Log()));
  EXPECT_THAT(sent_, ElementsAre("a@0:one", "a@1:TWO"));
  EXPECT_EQ(0u, data_.bytes());
  Add(a_, 0, "old", 1);
  Add(b_, 0, "new", 3);
  data_.ServerRestarted(3, Log());
  EXPECT_THAT(sent_, ElementsAre("a@0:one", "a@1:TWO", "a@0:old"));
  EXPECT_TRUE(data_.Has(b_));
  EXPECT_FALSE(data_.Has(a_));
}

TEST_F(UnstableTest, WhatCannotBeSentAgainIsReportedOnce) {
  Add(a_, 0, "one");
  resend_error_ = ENOSPC;
  EXPECT_EQ(ENOSPC, data_.Committed(a_, 0, data_.Mark(), 2, Log()));
  EXPECT_EQ(ENOSPC, data_.TakeError(a_));
  EXPECT_EQ(0, data_.TakeError(a_));
  EXPECT_EQ(0, data_.TakeError(b_));
}

TEST_F(UnstableTest, TruncatedDataDoesNotComeBack) {
  Add(a_, 0, "0123456789");
  Add(a_, 20, "tail");
  data_.Discard(a_, 5, UINT64_MAX);
  EXPECT_EQ(5u, data_.bytes());
  data_.Committed(a_, 0, data_.Mark(), 2, Log());
  EXPECT_THAT(sent_, ElementsAre("a@0:01234"));
  sent_.clear();
  Add(b_, 0, "0123456789");
  data_.Discard(b_, 3, 4);  // a hole in the middle
  EXPECT_EQ(6u, data_.bytes());
  data_.Committed(b_, 0, data_.Mark(), 2, Log());
  EXPECT_THAT(sent_, ::testing::UnorderedElementsAre("b@0:012", "b@7:789"));
}

TEST(BufferPoolTest, BuffersAreApartAndComeBackLastFirst) {
  BufferPool pool(kRequestBytes);
  std::vector<RequestBuffer> out;
  for (int i = 0; i < 100; ++i) {
    out.push_back(pool.Take());
    ASSERT_TRUE(out.back());
    std::memset(out.back().get(), i, kRequestBytes);
  }
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(i, out[i].get()[0]);
    EXPECT_EQ(i, out[i].get()[kRequestBytes - 1]);
  }
  const char* last = out[40].get();
  out[40].reset();
  EXPECT_EQ(last, pool.Take().get());
}

TEST(BufferPoolTest, TrimGivesBackWhatNobodyUses) {
  BufferPool pool(kRequestBytes);
  std::vector<RequestBuffer> out;
  for (int i = 0; i < 100; ++i) out.push_back(pool.Take());
  const size_t most = pool.held_bytes();
  EXPECT_GE(most, 100 * kRequestBytes);
  pool.Trim(0);
  EXPECT_EQ(most, pool.held_bytes());  // all of it is in use
  std::memset(out[99].get(), 'x', kRequestBytes);
  out.erase(out.begin(), out.begin() + 99);
  pool.Trim(0);
  EXPECT_GT(most, pool.held_bytes());
  EXPECT_GT(pool.held_bytes(), 0u);
  EXPECT_EQ('x', out[0].get()[kRequestBytes - 1]);
  for (int i = 0; i < 100; ++i) out.push_back(pool.Take());
  for (RequestBuffer& buffer : out) std::memset(buffer.get(), 'y', kRequestBytes);
  out.clear();
  pool.Trim(0);
  EXPECT_EQ(0u, pool.held_bytes());
}

}  // namespace
}  // namespace tripwire::fuse

// SPDX-License-Identifier: BSD-3-Clause
// What one client changes, another's cache does not outlive.
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "fs-server/lease_table.h"
#include "tests/unit/fs-server/fixture.h"

namespace tripwire::fs {
namespace {

class RecallTest : public FsTest {
 protected:
  void SetUp() override {
    config.lease_ms = 600'000;  // only recalls end it
    Start();
    a = Connect();
    b = Connect();
  }
  // Whether `peer` was told of `what` on `handle` (and `name`).
  static bool Told(Peer& peer, const std::string& handle, uint32_t what,
                   const std::string& name = {}) {
    for (const auto& notice : peer.notices()) {
      for (const auto& recall : notice.recalls()) {
        if (recall.handle() == handle && (recall.what() & what) == what &&
            (name.empty() || recall.name() == name)) {
          return true;
        }
      }
    }
    return false;
  }
  std::unique_ptr<Peer> a, b;
};

TEST_F(RecallTest, AWriteIsAcknowledgedWhenNobodyHoldsTheOldData) {
  auto f = a->Create(a->root(), "f", 1);
  ASSERT_EQ(b->Lookup(b->root(), "f").error(), 0);
  ASSERT_EQ(a->Write(f.reply.handle(), 1, 0, "new").error(), 0);
  EXPECT_TRUE(Told(*b, f.reply.handle(), pb::RECALL_ATTR | pb::RECALL_DATA));
  EXPECT_TRUE(a->notices().empty());
  // Told once, not again: it holds nothing now.
  ASSERT_EQ(a->Write(f.reply.handle(), 1, 0, "newer").error(), 0);
  EXPECT_EQ(b->notices().size(), 1u);
}

TEST_F(RecallTest, TheReplyWaitsForTheHoldersAnswer) {
  auto f = a->Create(a->root(), "f", 1);
  std::promise<void> go;
  auto gate = go.get_future().share();
  std::atomic<bool> answered{false};
  b->on_notice = [&](const pb::Notice&) {
    gate.wait();
    answered = true;
  };
  ASSERT_EQ(b->GetAttr(f.reply.handle()).error(), 0);
  auto write = std::async(std::launch::async, [&] {
    const int error = a->Write(f.reply.handle(), 1, 0, "x").error();
    EXPECT_TRUE(answered.load());
    return error;
  });
  ASSERT_TRUE(Eventually([&] { return net.notifications() > 0; }));
  // No thread waits meanwhile, and the holder itself is served.
  for (int i = 0; i < 20; ++i) EXPECT_EQ(b->Lookup(b->root(), "f").error(), 0);
  go.set_value();
  EXPECT_EQ(write.get(), 0);
}

TEST_F(RecallTest, ASilentHolderDelaysOthersNoLongerThanItsLease) {
  config.lease_ms = 100;
  Restart();
  auto f = a->Create(a->root(), "f", 1);
  std::promise<void> never;
  auto gate = never.get_future().share();
  b->on_notice = [gate](const pb::Notice&) { gate.wait(); };
  ASSERT_EQ(b->GetAttr(f.reply.handle()).error(), 0);
  EXPECT_EQ(a->Write(f.reply.handle(), 1, 0, "x").error(), 0);
  never.set_value();
}

TEST_F(RecallTest, AHolderThatLeavesDelaysNobody) {
  auto f = a->Create(a->root(), "f", 1);
  ASSERT_EQ(b->GetAttr(f.reply.handle()).error(), 0);
  net.Cut();
  auto write = std::async(std::launch::async,
                          [&] { return a->Write(f.reply.handle(), 1, 0, "x").error(); });
  b->Disconnect();
  net.Heal();
  EXPECT_EQ(write.get(), 0);
}

TEST_F(RecallTest, NamesPositiveAndNegative) {
  EXPECT_EQ(b->Lookup(b->root(), "f").error(), ENOENT);
  auto f = a->Create(a->root(), "f");
  EXPECT_TRUE(Told(*b, a->root(), pb::RECALL_NAMES, "f"));
  ASSERT_EQ(b->Lookup(b->root(), "f").error(), 0);
  ASSERT_EQ(a->Remove(a->root(), "f").error(), 0);
  EXPECT_TRUE(b->notices().back().recalls(0).deleted());
  EXPECT_TRUE(Told(*b, f.reply.handle(), pb::RECALL_ATTR));
  EXPECT_EQ(b->Lookup(b->root(), "g").error(), ENOENT);
  auto d = a->MkDir(a->root(), "d");
  auto h = a->Create(d.reply.handle(), "h");
  ASSERT_EQ(b->Lookup(d.reply.handle(), "h").error(), 0);
  EXPECT_EQ(b->Lookup(b->root(), "g").error(), ENOENT);
  ASSERT_EQ(a->Rename(d.reply.handle(), "h", a->root(), "g").error(), 0);
  EXPECT_TRUE(Told(*b, d.reply.handle(), pb::RECALL_NAMES, "h"));
  EXPECT_TRUE(Told(*b, a->root(), pb::RECALL_NAMES, "g"));
}

// What else is known of a directory when one of its names is recalled is recalled when its
// time comes.
TEST_F(RecallTest, OneNameAfterAnother) {
  auto f = a->Create(a->root(), "f");
  ASSERT_EQ(b->Lookup(b->root(), "f").error(), 0);
  EXPECT_EQ(b->Lookup(b->root(), "g").error(), ENOENT);
  ASSERT_EQ(a->SymLink(a->root(), "unknown", "x").error(), 0);
  ASSERT_EQ(a->Rename(a->root(), "f", a->root(), "g").error(), 0);
  EXPECT_TRUE(Told(*b, a->root(), pb::RECALL_NAMES, "f"));
  EXPECT_TRUE(Told(*b, a->root(), pb::RECALL_NAMES, "g"));
}

TEST_F(RecallTest, ListingsToo) {
  auto d = a->MkDir(a->root(), "d");
  auto f = a->Create(d.reply.handle(), "f", 1);
  EXPECT_EQ(b->List(d.reply.handle(), true).size(), 1u);
  ASSERT_EQ(a->Write(f.reply.handle(), 1, 0, "x").error(), 0);
  EXPECT_TRUE(Told(*b, f.reply.handle(), pb::RECALL_DATA));
  ASSERT_EQ(a->Create(d.reply.handle(), "g").error(), 0);
  EXPECT_TRUE(Told(*b, d.reply.handle(), pb::RECALL_NAMES, "g"));
}

TEST_F(RecallTest, ChangesBehindTheServersBack) {
  config.watch = true;
  Stop();
  auto created = FileServer::Create(config);
  if (!IsRoot()) {
    EXPECT_FALSE(created.ok());
    config.watch = false;
    return Start();
  }
  ASSERT_TRUE(created.ok()) << created.status();
  created->reset();
  Start();
  WriteFile(dir / "f", "old");
  auto f = b->Lookup(b->root(), "f");
  ASSERT_EQ(f.error(), 0);
  EXPECT_EQ(b->Lookup(b->root(), "g").error(), ENOENT);
  WriteFile(dir / "f", "by this process, which is the server's: its own changes are not told");
  // By another process.
  ASSERT_EQ(std::system(("echo new > " + (dir / "f") + "; echo > " + (dir / "g")).c_str()), 0);
  EXPECT_TRUE(Eventually(
      [&] { return Told(*b, f.reply.handle(), pb::RECALL_ATTR | pb::RECALL_DATA); }));
  EXPECT_TRUE(Eventually([&] { return Told(*b, b->root(), pb::RECALL_NAMES, "g"); }));
}

TEST_F(RecallTest, TwoThatChangeTheSameFileDoNotWaitForEachOther) {
  auto f = a->Create(a->root(), "f", 1);
  ASSERT_EQ(b->Open(f.reply.handle(), 1, pb::OPEN_READ | pb::OPEN_WRITE).error(), 0);
  auto writer = [&](Peer* peer) {
    for (int i = 0; i < 200; ++i) EXPECT_EQ(peer->Write(f.reply.handle(), 1, 0, "x").error(), 0);
  };
  auto other = std::async(std::launch::async, writer, a.get());
  writer(b.get());
  other.get();
}

// One writes ever larger numbers, the other reads them. A value cached must be
// recalled before the write of a larger one is acknowledged.
TEST_F(RecallTest, NoStaleReadAfterAnAcknowledgedWrite) {
  auto f = a->Create(a->root(), "f", 1);
  ASSERT_EQ(b->Open(f.reply.handle(), 1, pb::OPEN_READ).error(), 0);
  std::mutex mutex;
  int cached = -1;
  uint64_t recalls = 0;
  b->on_notice = [&](const pb::Notice&) {
    std::lock_guard lock(mutex);
    cached = -1;
    ++recalls;
  };
  std::atomic<int> acknowledged{0};
  std::atomic<bool> done{false};
  auto reader = std::async(std::launch::async, [&] {
    while (!done) {
      const int at_least = acknowledged;
      int value;
      uint64_t before;
      {
        std::lock_guard lock(mutex);
        value = cached;
        before = recalls;
      }
      if (value < 0) {
        value = std::atoi(b->Read(f.reply.handle(), 1, 0, 8).bulk.c_str());
        std::lock_guard lock(mutex);
        if (recalls == before) cached = value;
      }
      EXPECT_GE(value, at_least);
    }
  });
  for (int i = 1; i <= 300; ++i) {
    char text[9];
    std::snprintf(text, sizeof(text), "%08d", i);
    EXPECT_EQ(a->Write(f.reply.handle(), 1, 0, text).error(), 0);
    acknowledged = i;
  }
  done = true;
  reader.get();
}

TEST(LeaseTableTest, GrantTakeExpire) {
  LeaseTable leases;
  FileId id;
  id.size = 1;
  leases.Grant(id, 1, LeaseTable::kInode, 100, 0);
  leases.Grant(id, 2, LeaseTable::kInode | LeaseTable::kNames, 200, 0);
  LeaseTable::Holders holders;
  leases.Take(id, 1, LeaseTable::kNames, false, 50, &holders);
  ASSERT_EQ(holders.size(), 1u);
  EXPECT_EQ(holders[0].session, 2u);
  holders.clear();
  leases.Take(id, 3, LeaseTable::kInode, false, 150, &holders);  // 1's has run out
  ASSERT_EQ(holders.size(), 1u);
  EXPECT_EQ(holders[0].session, 2u);
  EXPECT_EQ(leases.size(), 0u);
}

// The holder's kernel may count from later than the holder thinks.
TEST(LeaseTableTest, WhatHasJustRunOutIsRecalledToo) {
  LeaseTable leases([](uint64_t, const FileId&) { return false; }, 50);
  FileId id;
  id.size = 1;
  leases.Grant(id, 1, LeaseTable::kNames, 100, 0);
  leases.Grant(id, 2, LeaseTable::kNames, 149, 99);
  LeaseTable::Holders holders;
  leases.Take(id, 3, LeaseTable::kNames, false, 149, &holders);
  ASSERT_EQ(holders.size(), 2u);
  for (const auto& holder : holders)
    EXPECT_EQ(holder.expires_ns, 199u);  // to answer until
  leases.Grant(id, 1, LeaseTable::kNames, 300, 200);
  holders.clear();
  leases.Take(id, 3, LeaseTable::kNames, false, 350, &holders);
  EXPECT_TRUE(holders.empty());
  EXPECT_EQ(leases.size(), 0u);
}

// One name is recalled: the others are still believed, so their lease goes on.
TEST(LeaseTableTest, ANameRecalledLeavesTheOthers) {
  LeaseTable leases;
  FileId id;
  id.size = 1;
  constexpr uint8_t kBoth = LeaseTable::kInode | LeaseTable::kNames;
  leases.Grant(id, 1, kBoth, 1000, 0);
  int told = 0;
  for (int i = 0; i < 40; ++i) {
    LeaseTable::Holders holders;
    leases.Take(id, 2, kBoth, true, 10, &holders);
    if (holders.empty()) continue;
    EXPECT_EQ(told, i);
    ++told;
    ASSERT_EQ(holders.size(), 1u);
    EXPECT_EQ(holders[0].what, i == 0 ? kBoth : uint8_t{LeaseTable::kNames});
    // In the end all of them at once.
    EXPECT_EQ(holders[0].every_name, told == 16) << told;
  }
  EXPECT_EQ(told, 16);
  EXPECT_EQ(leases.size(), 0u);
}

TEST(LeaseTableTest, ForgetsWhatRanOut) {
  LeaseTable leases;
  for (uint64_t i = 0; i < 1'000'000; ++i) {
    FileId id;
    id.fs = i;
    leases.Grant(id, 1, LeaseTable::kInode, i + 10, i);
  }
  EXPECT_LT(leases.size(), 200'000u);
  leases.EndSession(1);
  EXPECT_EQ(leases.size(), 0u);
}

TEST_F(RecallTest, OpenFilesAreRecalledHoweverLongAgoTheirLeaseEnded) {
  constexpr int kFiles = 1000;
  config.lease_ms = 30;
  Restart();
  auto reader = Connect(), writer = Connect();
  std::vector<std::string> handles;
  for (uint64_t i = 1; i <= kFiles; ++i) {
    auto made = reader->Create(reader->root(), "open" + std::to_string(i), i);
    ASSERT_EQ(made.error(), 0);
    handles.push_back(made.reply.handle());
  }
  const std::string closed = reader->Create(reader->root(), "closed").reply.handle();
  // All leases have run out when the last one granted has.
  const auto lease = std::chrono::milliseconds(config.lease_ms);
  std::this_thread::sleep_for(4 * lease);
  for (const std::string& handle : handles) {
    ASSERT_EQ(writer->Write(handle, 0, 0, "new").error(), 0);
  }
  ASSERT_EQ(writer->Write(closed, 0, 0, "new").error(), 0);
  std::set<std::string> recalled;
  for (const auto& notice : reader->notices()) {
    for (const auto& recall : notice.recalls()) recalled.insert(recall.handle());
  }
  for (const std::string& handle : handles) EXPECT_EQ(recalled.count(handle), 1u);
  EXPECT_EQ(recalled.count(closed), 0u);
  // Told once, it holds nothing more to be told of until it asks again.
  const size_t before = reader->notices().size();
  ASSERT_EQ(writer->Write(handles[0], 0, 0, "newer").error(), 0);
  EXPECT_EQ(reader->notices().size(), before);
  ASSERT_EQ(reader->Read(handles[0], 1, 0, 10).error(), 0);
  std::this_thread::sleep_for(4 * lease);
  ASSERT_EQ(writer->Write(handles[0], 0, 0, "newest").error(), 0);
  EXPECT_TRUE(Eventually([&] { return reader->notices().size() > before; }));
}

}  // namespace
}  // namespace tripwire::fs

// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/node_table.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <thread>

#include "fuse-client/held_locks.h"

namespace tripwire::fuse {
namespace {

Identity File(const std::string& handle, uint64_t ino) {
  return {handle, ino, 1, S_IFREG};
}

TEST(NodeTable, TheSameHandleIsTheSameNode) {
  NodeTable table;
  Node* root = table.Get(NodeTable::kRootId);
  ASSERT_NE(nullptr, root);
  Node* a = table.Enter(File("handle-a", 10), root, "a");
  EXPECT_EQ(a, table.Enter(File("handle-a", 10), root, "a"));
  Node* b = table.Enter(File("handle-b", 11), root, "b");
  EXPECT_NE(a, b);
  EXPECT_EQ(3u, table.size());
  EXPECT_EQ(a, table.Find("handle-a").get());
  EXPECT_FALSE(table.Find("handle-c"));
}

TEST(NodeTable, ForgottenWhenAllLookupsAreForgotten) {
  NodeTable table;
  Node* root = table.Get(NodeTable::kRootId);
  Node* a = table.Enter(File("a", 10), root, "a");
  table.Enter(File("a", 10), root, "a");
  const uint64_t id = a->id;
  table.Forget(id, 1);
  EXPECT_EQ(a, table.Get(id));
  {
    NodeRef ref = table.Acquire(id);
    table.Forget(id, 1);
    EXPECT_EQ(a, table.Get(id)) << "somebody still holds it";
  }
  EXPECT_EQ(nullptr, table.Get(id));
  EXPECT_FALSE(table.Acquire(id));
  EXPECT_FALSE(table.Find("a"));
  EXPECT_EQ(1u, table.size());
}

TEST(NodeTable, IdsAreReusedButNeverWithTheSameGeneration) {
  NodeTable table;
  Node* root = table.Get(NodeTable::kRootId);
  Node* a = table.Enter(File("a", 10), root, "a");
  const uint64_t id = a->id;
  const uint32_t generation = a->generation;
  table.Forget(id, 1);
  Node* b = table.Enter(File("b", 11), root, "b");
  EXPECT_EQ(id, b->id);
  EXPECT_NE(generation, b->generation);
}

TEST(NodeTable, AnyNumberMayBeAskedFor) {
  NodeTable table;
  for (const uint64_t id : {uint64_t{0}, uint64_t{2}, uint64_t{1} << 40, UINT64_MAX}) {
    EXPECT_EQ(nullptr, table.Get(id));
    EXPECT_FALSE(table.Acquire(id));
    table.Forget(id, 5);
  }
  table.Forget(NodeTable::kRootId, 100);
  EXPECT_NE(nullptr, table.Get(NodeTable::kRootId));
}

TEST(NodeTable, AHandleThatChangedItsTypeIsAnotherNode) {
  NodeTable table;
  Node* root = table.Get(NodeTable::kRootId);
  Node* file = table.Enter(File("a", 10), root, "a");
  Node* dir = table.Enter({"a", 10, 1, S_IFDIR}, root, "a");
  EXPECT_NE(file, dir);
  EXPECT_EQ(dir, table.Find("a").get());
  const uint64_t file_id = file->id;
  table.Forget(file_id, 1);
  EXPECT_EQ(nullptr, table.Get(file_id));
  EXPECT_EQ(dir, table.Find("a").get());
}

TEST(NodeTable, RekeyMovesANodeToItsNewHandle) {
  NodeTable table;
  Node* root = table.Get(NodeTable::kRootId);
  Node* a = table.Enter(File("old", 10), root, "a");
  table.Rekey(a, "new");
  EXPECT_FALSE(table.Find("old"));
  EXPECT_EQ(a, table.Find("new").get());
  EXPECT_EQ("new", a->Handle());
  table.Forget(a->id, 1);
  EXPECT_FALSE(table.Find("new"));
}

TEST(NodeTable, ManyNodesFromManyThreads) {
  NodeTable table;
  Node* root = table.Get(NodeTable::kRootId);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5000; ++i) {
        // Half of the names are the other threads', too.
        const int n = i % 2 ? i : i + t * 100000;
        Node* node = table.Enter(File("h" + std::to_string(n), 1), root, "n");
        NodeRef again = table.Find("h" + std::to_string(n));
        EXPECT_EQ(node, again.get());
        table.Forget(node->id, 1);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(1u, table.size());
}

HeldLock Lock(fs::pb::LockType type, uint64_t start, uint64_t end, uint64_t owner = 1) {
  HeldLock lock;
  lock.type = type;
  lock.owner = owner;
  lock.start = start;
  lock.end = end;
  return lock;
}

std::vector<std::string> Text(const HeldLocks& held) {
  std::vector<std::string> text;
  for (const HeldLock& l : held.locks) {
    text.push_back((l.type == fs::pb::LOCK_TYPE_WRITE ? "w" : "r") +
                   std::to_string(l.start) + "-" + std::to_string(l.end));
  }
  std::sort(text.begin(), text.end());
  return text;
}

TEST(HeldLocks, SplitAndJoinAsFcntlDoes) {
  using Strings = std::vector<std::string>;
  HeldLocks held;
  held.Apply(Lock(fs::pb::LOCK_TYPE_WRITE, 0, 99));
  held.Apply(Lock(fs::pb::LOCK_TYPE_UNLOCK, 40, 59));
  EXPECT_EQ((Strings{"w0-39", "w60-99"}), Text(held));
  held.Apply(Lock(fs::pb::LOCK_TYPE_READ, 10, 19));
  EXPECT_EQ((Strings{"r10-19", "w0-9", "w20-39", "w60-99"}), Text(held));
  held.Apply(Lock(fs::pb::LOCK_TYPE_WRITE, 40, 59));
  EXPECT_EQ((Strings{"r10-19", "w0-9", "w20-99"}), Text(held));
  held.Apply(Lock(fs::pb::LOCK_TYPE_READ, 0, UINT64_MAX));
  EXPECT_EQ((Strings{"r0-18446744073709551615"}), Text(held));
  held.Apply(Lock(fs::pb::LOCK_TYPE_UNLOCK, 0, UINT64_MAX));
  EXPECT_TRUE(held.locks.empty());
}

TEST(HeldLocks, OwnersAreApart) {
  HeldLocks held;
  held.Apply(Lock(fs::pb::LOCK_TYPE_READ, 0, 9, 1));
  held.Apply(Lock(fs::pb::LOCK_TYPE_READ, 0, 9, 2));
  EXPECT_EQ(2u, held.locks.size());
  held.Drop(fs::pb::LOCK_KIND_POSIX, 1);
  EXPECT_FALSE(held.Has(fs::pb::LOCK_KIND_POSIX, 1));
  EXPECT_TRUE(held.Has(fs::pb::LOCK_KIND_POSIX, 2));
  EXPECT_FALSE(held.Has(fs::pb::LOCK_KIND_FLOCK, 2));
}

}  // namespace
}  // namespace tripwire::fuse

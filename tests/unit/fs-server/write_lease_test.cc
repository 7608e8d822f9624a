// SPDX-License-Identifier: BSD-3-Clause
// Who has a write lease may have writes under way that nobody else misses.
#include <fcntl.h>
#include <sys/file.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "fs-server/lease_table.h"
#include "tests/unit/fs-server/fixture.h"

namespace tripwire::fs {
namespace {

class WriteLeaseTest : public FsTest {
 protected:
  void SetUp() override {
    config.lease_ms = 600'000;  // only recalls end it
    Begin();
  }
  void Begin() {
    Start();
    a = Connect();
    b = Connect();
    // What is under way when a recall comes.
    a->on_notice = [this](const pb::Notice& notice) {
      for (const auto& recall : notice.recalls()) {
        if ((recall.what() & pb::RECALL_WRITES) == 0) continue;
        ++recalled;
        EXPECT_EQ(Write("written", false, 0).error(), 0);
      }
    };
  }
  Peer::Result Write(const std::string& data, bool wants_lease, uint64_t state = 1) {
    auto call = a->New();
    auto* op = call.mutable_write();
    op->mutable_object()->set_handle(file);
    op->mutable_object()->set_state(state);
    op->set_wants_lease(wants_lease);
    return a->Do(call, data);
  }
  // A file that `a` has open, and a write lease on.
  void BeginWriting(const std::string& name = "f") {
    file = a->Create(a->root(), name, 1).reply.handle();
    EXPECT_TRUE(Write("x", true).reply.write().lease());
  }
  // From now on `a` answers no recall until the promise is kept.
  std::promise<void> Silence() {
    std::promise<void> answer;
    a->on_notice = [gate = answer.get_future().share()](const pb::Notice&) { gate.wait(); };
    return answer;
  }
  // What `b` is told of the file, which a recall has to precede.
  std::future<int> LookAndWait() {
    auto look = std::async(std::launch::async, [this] { return b->GetAttr(file).error(); });
    EXPECT_TRUE(Eventually([this] { return net.notifications() > 0; }));
    return look;
  }
  std::unique_ptr<Peer> a, b;
  std::string file;
  std::atomic<int> recalled{0};
};

TEST_F(WriteLeaseTest, IsForWhoAsksAndHasTheFileOpen) {
  file = a->Create(a->root(), "f", 1).reply.handle();
  EXPECT_FALSE(Write("x", false).reply.write().lease());
  EXPECT_FALSE(Write("x", true, 0).reply.write().lease());
  EXPECT_TRUE(Write("x", true).reply.write().lease());
  EXPECT_EQ(b->GetAttr(file).error(), 0);
  EXPECT_EQ(recalled, 1);
}

TEST_F(WriteLeaseTest, NobodySeesTheFileBeforeItsWriterAnswers) {
  using Look = std::function<uint64_t()>;  // the size that is seen
  const std::pair<const char*, Look> looks[] = {
      {"getattr", [&] { return b->GetAttr(file).reply.attr().size(); }},
      {"lookup", [&] { return b->Lookup(b->root(), "lookup").reply.attr().size(); }},
      {"read", [&] { return b->Read(file, 0, 0, 100).bulk.size(); }},
      {"open", [&] { return b->Open(file, 9, pb::OPEN_READ).reply.attr().size(); }},
      {"create",
       [&] {
         return b->Create(b->root(), "create", 10, 0644, pb::CREATE_UNCHECKED, pb::OPEN_READ)
             .reply.attr()
             .size();
       }},
      {"access", [&] {
         auto call = b->New();
         call.mutable_access()->set_handle(file);
         return b->Do(call).reply.attr().size();
       }}};
  for (const auto& [name, look] : looks) {
    BeginWriting(name);
    const int before = recalled;
    EXPECT_EQ(look(), 7u) << name;
    EXPECT_EQ(recalled, before + 1) << name;
    // Once, for now nothing is under way any more, and `b` is told of what changes.
    EXPECT_EQ(b->GetAttr(file).reply.attr().size(), 7u) << name;
    EXPECT_EQ(recalled, before + 1) << name;
    EXPECT_FALSE(Write("x", true).reply.write().lease()) << name;
    ASSERT_EQ(a->Close(file, 1).error(), 0);
    b->Close(file, 9);
  }
}

TEST_F(WriteLeaseTest, OthersChangesComeAfterIt) {
  BeginWriting();
  ASSERT_EQ(b->Open(file, 9, pb::OPEN_READ | pb::OPEN_WRITE | pb::OPEN_TRUNCATE).error(), 0);
  EXPECT_EQ(ReadFile(dir / "f"), "");
  BeginWriting("g");
  ASSERT_EQ(b->Create(b->root(), "g", 10, 0644, pb::CREATE_UNCHECKED,
                      pb::OPEN_READ | pb::OPEN_WRITE | pb::OPEN_TRUNCATE)
                .error(),
            0);
  EXPECT_EQ(ReadFile(dir / "g"), "");
  BeginWriting("h");
  ASSERT_EQ(b->Write(file, 0, 0, "W").error(), 0);
  EXPECT_EQ(ReadFile(dir / "h"), "Written");
  EXPECT_EQ(recalled, 3);
}

TEST_F(WriteLeaseTest, OthersLocksTooAndTheyHoldOnThisHost) {
  BeginWriting();
  const auto lock = b->LockCall(file, pb::LOCK_KIND_FLOCK, pb::LOCK_TYPE_WRITE,
                                pb::LOCK_ACTION_TRY, 7);
  EXPECT_EQ(b->Do(lock).error(), 0);
  EXPECT_EQ(recalled, 1);
  UniqueFd here(open((dir / "f").c_str(), O_RDWR));
  EXPECT_EQ(flock(here.get(), LOCK_EX | LOCK_NB), -1);
}

TEST_F(WriteLeaseTest, ListingsTellNothingOfIt) {
  BeginWriting();
  auto entries = b->List(b->root(), true);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].name(), "f");
  EXPECT_TRUE(entries[0].handle().empty());
  EXPECT_EQ(recalled, 0);
  ASSERT_EQ(b->GetAttr(file).error(), 0);
  entries = b->List(b->root(), true);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].attr().size(), 7u);
}

TEST_F(WriteLeaseTest, IsNotGivenBesideOthers) {
  file = a->Create(a->root(), "f", 1).reply.handle();
  ASSERT_EQ(b->GetAttr(file).error(), 0);
  // This takes `b`'s lease, before it is answered; then `b` has none.
  EXPECT_FALSE(Write("x", true).reply.write().lease());
  EXPECT_TRUE(Write("y", true).reply.write().lease());
}

TEST_F(WriteLeaseTest, IsNotGivenWhileOthersGoOnLooking) {
  file = a->Create(a->root(), "f", 1).reply.handle();
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(b->GetAttr(file).error(), 0);
    EXPECT_FALSE(Write("x", true).reply.write().lease());
  }
  EXPECT_EQ(recalled, 0);
}

TEST_F(WriteLeaseTest, EndsWithTheLastClose) {
  BeginWriting();
  ASSERT_EQ(a->Open(file, 2, pb::OPEN_READ).error(), 0);
  ASSERT_EQ(a->Close(file, 1).error(), 0);
  EXPECT_EQ(b->GetAttr(file).error(), 0);
  EXPECT_EQ(recalled, 1);
  BeginWriting("g");
  ASSERT_EQ(a->Close(file, 1).error(), 0);
  EXPECT_EQ(b->GetAttr(file).error(), 0);
  EXPECT_EQ(recalled, 1);
}

TEST_F(WriteLeaseTest, ItsHolderIsServedMeanwhile) {
  BeginWriting();
  EXPECT_EQ(a->GetAttr(file).error(), 0);
  EXPECT_EQ(a->Read(file, 1, 0, 10).bulk, "x");
  EXPECT_EQ(a->Remove(a->root(), "f").error(), 0);
  EXPECT_EQ(recalled, 0);
}

TEST_F(WriteLeaseTest, ASilentWriterDelaysOthersNoLongerThanItsLease) {
  Stop();
  config.lease_ms = 100;
  Begin();
  BeginWriting();
  std::promise<void> never = Silence();
  EXPECT_EQ(b->GetAttr(file).error(), 0);
  never.set_value();
}

TEST_F(WriteLeaseTest, AWriterThatLeavesDelaysNobody) {
  BeginWriting();
  std::promise<void> never = Silence();
  std::future<int> look = LookAndWait();
  never.set_value();
  a->Disconnect();
  EXPECT_EQ(look.get(), 0);
}

TEST_F(WriteLeaseTest, WhoWaitsWhenTheServerEndsIsAnswered) {
  BeginWriting();
  std::promise<void> never = Silence();
  std::future<int> look = LookAndWait();
  files->Shutdown();
  EXPECT_EQ(look.get(), 0);
  never.set_value();
}

TEST(WriteLeaseTableTest, OneWriterAndNobodyBeside) {
  constexpr uint64_t kLater = 1000;
  LeaseTable leases([](uint64_t, const FileId&) { return false; }, 100);
  FileId id;
  id.size = 1;
  EXPECT_FALSE(leases.HasWriters());
  ASSERT_TRUE(leases.Grant(id, 2, LeaseTable::kInode, 50, 0));
  EXPECT_FALSE(leases.GrantWrites(id, 1, kLater, 149));  // the other's has just run out
  ASSERT_TRUE(leases.GrantWrites(id, 1, kLater, 150));
  EXPECT_TRUE(leases.HasWriters());
  EXPECT_FALSE(leases.GrantWrites(id, 2, kLater, 200));
  EXPECT_FALSE(leases.Grant(id, 2, LeaseTable::kInode, kLater, 200));
  EXPECT_TRUE(leases.Grant(id, 1, LeaseTable::kInode, kLater, 200));
  EXPECT_TRUE(leases.GrantWrites(id, 1, kLater, 200));  // renewed
  EXPECT_FALSE(leases.TakeWriter(id, 1, 300));
  const auto writer = leases.TakeWriter(id, 2, 300);
  ASSERT_TRUE(writer);
  EXPECT_EQ(writer->session, 1u);
  EXPECT_EQ(writer->until_ns, kLater);
  // It is not renewed: the answer, which is on its way, ends it.
  EXPECT_FALSE(leases.GrantWrites(id, 1, 2 * kLater, 301));
  EXPECT_FALSE(leases.Grant(id, 2, LeaseTable::kInode, kLater, 301));
  leases.EndWrites(id, 1, 500);
  EXPECT_FALSE(leases.TakeWriter(id, 2, 302));
  EXPECT_FALSE(leases.GrantWrites(id, 1, kLater, 499));
  EXPECT_TRUE(leases.GrantWrites(id, 1, kLater, 500));
}

TEST(WriteLeaseTableTest, OneThatHasJustRunOutIsRecalledToo) {
  LeaseTable leases([](uint64_t, const FileId&) { return false; }, 100);
  FileId id;
  id.size = 1;
  ASSERT_TRUE(leases.GrantWrites(id, 1, 1000, 0));
  const auto writer = leases.TakeWriter(id, 2, 1099);
  ASSERT_TRUE(writer);
  EXPECT_EQ(writer->until_ns, 1199u);  // to answer until
  EXPECT_FALSE(leases.TakeWriter(id, 2, 1100));
  EXPECT_TRUE(leases.GrantWrites(id, 2, 2000, 1100));
}

TEST(WriteLeaseTableTest, ForgetsSessionsThatEnd) {
  LeaseTable leases;
  FileId id;
  id.size = 1;
  ASSERT_TRUE(leases.GrantWrites(id, 1, 1000, 0));
  leases.Clear();
  EXPECT_TRUE(leases.TakeWriter(id, 2, 10));
  leases.EndSession(1);
  EXPECT_FALSE(leases.HasWriters());
  EXPECT_TRUE(leases.GrantWrites(id, 2, 1000, 10));
}

}  // namespace
}  // namespace tripwire::fs

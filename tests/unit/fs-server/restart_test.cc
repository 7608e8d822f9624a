// SPDX-License-Identifier: BSD-3-Clause
// Exactly once, across lost replies, cut links and killed servers.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <future>
#include <string>

#include "fs-server/journal.h"
#include "tests/unit/fs-server/fixture.h"

namespace tripwire::fs {
namespace {

TEST(JournalTest, RemembersIntentAndReplyAcrossOpens) {
  TempDir dir;
  bool known = false;
  {
    auto journal = Journal::Open(dir.path(), 4);
    ASSERT_TRUE(journal.ok());
    auto session = (*journal)->Attach(77, &known);
    ASSERT_NE(session, nullptr);
    EXPECT_FALSE(known);
    Intent intent;
    intent.ino = 5;
    session->Begin(3, 10, intent);
    session->Finish(3, "the reply");
    intent.ino = 6;
    session->Begin(4, 11, intent);
    session->SetHoldsLocks(true);
    EXPECT_EQ(Journal::Open(dir.path(), 4).status().code(),
              absl::StatusCode::kFailedPrecondition);  // one server at a time
  }
  auto journal = Journal::Open(dir.path(), 4);
  ASSERT_TRUE(journal.ok());
  EXPECT_EQ((*journal)->LostLockHolders(), std::vector<uint64_t>{77});
  auto session = (*journal)->Attach(77, &known);
  EXPECT_TRUE(known);
  Intent intent;
  std::string_view reply;
  EXPECT_EQ(session->Lookup(3, 10, &intent, &reply), Journal::Found::kReply);
  EXPECT_EQ(reply, "the reply");
  EXPECT_EQ(session->Lookup(3, 11, &intent, &reply), Journal::Found::kNothing);
  EXPECT_EQ(session->Lookup(4, 11, &intent, &reply), Journal::Found::kIntent);
  EXPECT_EQ(intent.ino, 6u);
  EXPECT_EQ(session->Lookup(1000, 11, &intent, &reply), Journal::Found::kNothing);
  (*journal)->Free(session.get());
  session->Finish(4, "too late");
  EXPECT_FALSE((*journal)->Attach(77, &known) == nullptr);
  EXPECT_FALSE(known);
}

TEST(JournalTest, WhenFullTheOldestOfTheDeadMakesRoom) {
  TempDir dir;
  bool known = false;
  {
    auto journal = Journal::Open(dir.path(), 3);
    for (uint64_t id = 1; id <= 3; ++id) EXPECT_NE((*journal)->Attach(id, &known), nullptr);
    EXPECT_EQ((*journal)->Attach(4, &known), nullptr);  // all are alive
  }
  auto journal = Journal::Open(dir.path(), 3);
  EXPECT_NE((*journal)->Attach(1, &known), nullptr);
  EXPECT_TRUE(known);
  EXPECT_NE((*journal)->Attach(5, &known), nullptr);
  EXPECT_NE((*journal)->Attach(3, &known), nullptr);
  EXPECT_TRUE(known);  // 2 went
}

TEST(JournalTest, DamagedFilesAreMadeAnew) {
  TempDir dir;
  bool known = false;
  { ASSERT_TRUE(Journal::Open(dir.path(), 3).ok()); }
  WriteFile(dir / "replies", "rubbish");
  auto journal = Journal::Open(dir.path(), 3);
  ASSERT_TRUE(journal.ok());
  EXPECT_NE((*journal)->Attach(1, &known), nullptr);
}

class RestartTest : public FsTest {
 protected:
  void SetUp() override {
    Start();
    peer = Connect();
    root = peer->root();
  }
  std::unique_ptr<Peer> peer;
  std::string root;
};

// What makes a server forget a client's session.
enum class Loss { kKill, kLongCut, kLongCutAndKill };
std::string Name(const ::testing::TestParamInfo<Loss>& info) {
  static constexpr const char* kNames[] = {"Kill", "LongCut", "LongCutAndKill"};
  return kNames[static_cast<int>(info.param)];
}

class ForgottenTest : public RestartTest,
                      public ::testing::WithParamInterface<Loss> {
 protected:
  // Does `call` so that the server performs it and forgets the session before
  // anybody sees the reply; returns what is answered in the next session.
  Peer::Result DoAndForget(const pb::Call& call, const std::string& bulk = {}) {
    net.Cut();
    auto pending = std::async(std::launch::async, [&] { return peer->Do(call, bulk); });
    // Sent before the cut was, so to speak: let it through to the server alone.
    const uint64_t before = net.calls();
    net.DeliverCalls();
    EXPECT_TRUE(Eventually([&] { return net.calls() > before && net.idle(); }));
    if (GetParam() != Loss::kKill) net.LoseSessions();
    if (GetParam() != Loss::kLongCut) Kill();
    net.Heal();
    if (GetParam() != Loss::kLongCut) Start();
    return pending.get();
  }
};

INSTANTIATE_TEST_SUITE_P(After, ForgottenTest,
                         ::testing::Values(Loss::kKill, Loss::kLongCut,
                                           Loss::kLongCutAndKill),
                         Name);

TEST_P(ForgottenTest, CreateGuarded) {
  auto call = peer->New();
  call.mutable_create()->set_dir(root);
  call.mutable_create()->set_name("f");
  call.mutable_create()->set_how(pb::CREATE_GUARDED);
  EXPECT_EQ(DoAndForget(call).error(), 0);
  EXPECT_EQ(peer->Do(call).error(), EEXIST);
}

TEST_P(ForgottenTest, WhatCreateOpenedIsOpenAtTheNextServerToo) {
  auto call = peer->New();
  call.mutable_create()->set_dir(root);
  call.mutable_create()->set_name("f");
  call.mutable_create()->set_how(pb::CREATE_GUARDED);
  call.mutable_create()->set_mode(
      IsRoot() ? 0400 : 0600);  // its maker may write it all the same, if the server can
  call.mutable_create()->set_state(42);
  call.mutable_create()->set_flags(pb::OPEN_READ | pb::OPEN_WRITE);
  auto made = DoAndForget(call);
  ASSERT_EQ(made.error(), 0);
  auto written = peer->Write(made.reply.handle(), 42, 0, "data");
  EXPECT_EQ(written.error(), 0);
  EXPECT_FALSE(written.reply.state_lost());
  // It is open in truth: it outlives its name.
  EXPECT_EQ(peer->Remove(root, "f").error(), 0);
  EXPECT_EQ(peer->Read(made.reply.handle(), 42, 0, 10).bulk, "data");
  EXPECT_EQ(peer->Close(made.reply.handle(), 42).error(), 0);
}

TEST_P(ForgottenTest, MkDirSymlinkMknod) {
  auto mkdir = peer->New();
  mkdir.mutable_mkdir()->set_dir(root);
  mkdir.mutable_mkdir()->set_name("d");
  auto made = DoAndForget(mkdir);
  EXPECT_EQ(made.error(), 0);
  EXPECT_EQ(peer->Lookup(root, "d").reply.handle(), made.reply.handle());
  auto symlink = peer->New();
  symlink.mutable_symlink()->set_dir(root);
  symlink.mutable_symlink()->set_name("l");
  symlink.mutable_symlink()->set_target("t");
  EXPECT_EQ(DoAndForget(symlink).error(), 0);
  auto mknod = peer->New();
  mknod.mutable_mknod()->set_dir(root);
  mknod.mutable_mknod()->set_name("p");
  mknod.mutable_mknod()->set_mode(S_IFIFO | 0600);
  EXPECT_EQ(DoAndForget(mknod).error(), 0);
}

TEST_P(ForgottenTest, RemoveRenameLink) {
  auto f = peer->Create(root, "f");
  auto link = peer->New();
  link.mutable_link()->mutable_object()->set_handle(f.reply.handle());
  link.mutable_link()->set_dir(root);
  link.mutable_link()->set_name("g");
  EXPECT_EQ(DoAndForget(link).error(), 0);
  auto rename = peer->New();
  rename.mutable_rename()->set_dir(root);
  rename.mutable_rename()->set_name("f");
  rename.mutable_rename()->set_new_dir(root);
  rename.mutable_rename()->set_new_name("h");
  EXPECT_EQ(DoAndForget(rename).error(), 0);
  auto remove = peer->New();
  remove.mutable_remove()->set_dir(root);
  remove.mutable_remove()->set_name("h");
  EXPECT_EQ(DoAndForget(remove).error(), 0);
  EXPECT_EQ(peer->Do(remove).error(), ENOENT);
  EXPECT_EQ(peer->Lookup(root, "g").error(), 0);
}

TEST_P(ForgottenTest, AppendHappensOnce) {
  auto f = peer->Create(root, "f", 1);
  peer->on_recovered = [&](Peer& p, const pb::GreetingReply&) {
    EXPECT_EQ(p.Open(f.reply.handle(), 1, pb::OPEN_READ | pb::OPEN_WRITE, true).error(), 0);
  };
  auto append = peer->New();
  append.mutable_write()->mutable_object()->set_handle(f.reply.handle());
  append.mutable_write()->mutable_object()->set_state(1);
  append.mutable_write()->set_append(true);
  auto result = DoAndForget(append, "once");
  EXPECT_EQ(result.error(), 0);
  EXPECT_EQ(result.reply.write().offset(), 0u);
  EXPECT_EQ(ReadFile(dir / "f"), "once");
}

TEST_F(RestartTest, ALostLinkAloneNeverRunsACallTwice) {
  auto call = peer->New();
  call.mutable_mkdir()->set_dir(root);
  call.mutable_mkdir()->set_name("d");
  net.Cut();
  auto pending = std::async(std::launch::async, [&] { return peer->Do(call).error(); });
  net.DeliverCalls();
  EXPECT_TRUE(Eventually([&] { return access((dir / "d").c_str(), F_OK) == 0 && net.idle(); }));
  net.Heal();
  EXPECT_EQ(pending.get(), 0);
}

TEST_F(RestartTest, OpenStatesAreReclaimed) {
  auto f = peer->Create(root, "f", 42);
  ASSERT_EQ(peer->Write(f.reply.handle(), 42, 0, "before").error(), 0);
  bool recovered = false;
  peer->on_recovered = [&](Peer& p, const pb::GreetingReply& reply) {
    EXPECT_EQ(reply.root(), root);
    EXPECT_EQ(p.Open(f.reply.handle(), 42,
                     pb::OPEN_READ | pb::OPEN_WRITE | pb::OPEN_TRUNCATE, true)
                  .error(),
              0);
    recovered = true;
  };
  Kill();
  auto pending = std::async(std::launch::async, [&] {
    return peer->Read(f.reply.handle(), 42, 0, 100);
  });
  Start();
  EXPECT_EQ(pending.get().bulk, "before");  // reclaiming does not truncate
  EXPECT_TRUE(recovered);
}

// What an earlier server may have done without recording its reply, told apart by
// what it left behind. The intents are put there as that server would have.
class EvidenceTest : public FsTest {
 protected:
  static constexpr uint64_t kSession = 4711;
  // Puts the intent of the client's next call on slot 0.
  void Plant(Peer& peer, pb::Call::OpCase op, Intent intent) {
    Stop();
    auto journal = Journal::Open(state.path(), config.sessions);
    ASSERT_TRUE(journal.ok());
    bool known = false;
    auto session = (*journal)->Attach(peer.client().session_id(), &known);
    intent.op = static_cast<uint32_t>(op);
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    intent.realtime_ns = now.tv_sec * 1'000'000'000 + now.tv_nsec;
    session->Begin(0, calls_ + 1, intent);
    journal->reset();
    Start();
    EXPECT_TRUE(Eventually([&] { return peer.client().connected(); }));
  }
  Peer::Result Next(Peer& peer, const pb::Call& call) {
    ++calls_;
    return peer.Do(call);
  }
  uint64_t calls_ = 0;
};

TEST_F(EvidenceTest, TellsDoneFromNotDone) {
  WriteFile(dir / "old", "");
  struct stat old;
  ASSERT_EQ(stat((dir / "old").c_str(), &old), 0);
  Start();
  auto peer = Connect();
  const std::string root = peer->root();
  auto remove = peer->New();
  remove.mutable_remove()->set_dir(root);
  remove.mutable_remove()->set_name("gone");
  Intent intent;
  intent.had_target = 1;
  intent.ino = 12345678;
  Plant(*peer, pb::Call::kRemove, intent);
  EXPECT_EQ(Next(*peer, remove).error(), 0);  // it was there then
  intent.had_target = 0;
  intent.ino = 0;
  Plant(*peer, pb::Call::kRemove, intent);
  EXPECT_EQ(Next(*peer, remove).error(), ENOENT);  // it never was

  // Made by somebody long ago, or by this very call.
  auto create = peer->New();
  create.mutable_create()->set_dir(root);
  create.mutable_create()->set_name("old");
  create.mutable_create()->set_how(pb::CREATE_GUARDED);
  intent = {};
  intent.had_target = 1;
  Plant(*peer, pb::Call::kCreate, intent);
  EXPECT_EQ(Next(*peer, create).error(), EEXIST);
  intent.had_target = 0;
  Plant(*peer, pb::Call::kCreate, intent);
  WriteFile(dir / "fresh", "");
  create.mutable_create()->set_name("fresh");
  EXPECT_EQ(Next(*peer, create).error(), 0);

  // The exchange was done: not again.
  WriteFile(dir / "x", "x");
  WriteFile(dir / "y", "y");
  struct stat x, y;
  ASSERT_EQ(stat((dir / "x").c_str(), &x), 0);
  ASSERT_EQ(stat((dir / "y").c_str(), &y), 0);
  auto exchange = peer->New();
  auto* op = exchange.mutable_rename();
  op->set_dir(root);
  op->set_name("x");
  op->set_new_dir(root);
  op->set_new_name("y");
  op->set_flags(pb::RENAME_FLAG_EXCHANGE);
  intent = {};
  intent.ino = y.st_ino;  // as it was before the exchange that made today's names
  intent.ino2 = x.st_ino;
  intent.had_target = 1;
  Plant(*peer, pb::Call::kRename, intent);
  EXPECT_EQ(Next(*peer, exchange).error(), 0);
  EXPECT_EQ(ReadFile(dir / "x"), "x");
  intent.ino = x.st_ino;  // not yet done
  intent.ino2 = y.st_ino;
  Plant(*peer, pb::Call::kRename, intent);
  EXPECT_EQ(Next(*peer, exchange).error(), 0);
  EXPECT_EQ(ReadFile(dir / "x"), "y");
}

}  // namespace
}  // namespace tripwire::fs

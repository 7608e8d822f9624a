// SPDX-License-Identifier: BSD-3-Clause
// Who acts: permissions, ownership, squashing, read-only exports.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <thread>

#include "tests/unit/fs-server/fixture.h"

namespace tripwire::fs {
namespace {

class IdentityTest : public FsTest {
 protected:
  void Begin(Squash squash, bool read_only = false) {
    config.exports[0].squash = squash;
    config.exports[0].read_only = read_only;
    Start();
    peer = Connect();
    root = peer->root();
    chmod(dir.path().c_str(), 01777);
  }
  uint32_t Uid(const std::string& name) {
    struct stat st{};
    lstat((dir / name).c_str(), &st);
    return st.st_uid;
  }
  std::unique_ptr<Peer> peer;
  std::string root;
};

// Of servers that act as each caller; run by anybody else than root they act as
// that one for all.
class CallersTest : public IdentityTest {
 protected:
  void SetUp() override {
    if (!IsRoot()) GTEST_SKIP() << "needs root, to become others";
  }
};

TEST_F(IdentityTest, ObjectsBelongToTheirCreator) {
  Begin(Squash::kNone);
  peer->Become(1000, 1001, {1002, 1003});
  EXPECT_EQ(peer->greeting().acts_as_caller(), IsRoot());
  const uint32_t uid = IsRoot() ? 1000 : geteuid();
  const uint32_t gid = IsRoot() ? 1001 : getegid();
  for (const auto& made : {peer->Create(root, "f"), peer->MkDir(root, "d"),
                           peer->SymLink(root, "l", "x")}) {
    ASSERT_EQ(made.error(), 0);
    EXPECT_EQ(made.reply.attr().uid(), uid);
    EXPECT_EQ(made.reply.attr().gid(), gid);
  }
}

TEST_F(CallersTest, TheKernelChecksEachCaller) {
  Begin(Squash::kNone);
  peer->Become(1000, 1000);
  auto f = peer->Create(root, "f", 1, 0640);
  auto d = peer->MkDir(root, "d", 0750);
  ASSERT_EQ(peer->Create(d.reply.handle(), "in").error(), 0);
  auto chgrp = [&] {
    auto call = peer->New();
    call.mutable_setattr()->mutable_object()->set_handle(f.reply.handle());
    call.mutable_setattr()->set_fields(pb::SET_GID);
    call.mutable_setattr()->set_gid(2000);
    return peer->Do(call).error();
  };
  EXPECT_EQ(chgrp(), EPERM);  // not a member
  peer->Become(1000, 1000, {2000});
  EXPECT_EQ(chgrp(), 0);

  peer->Become(1001, 1001);
  EXPECT_EQ(peer->Open(f.reply.handle(), 2, pb::OPEN_READ).error(), EACCES);
  EXPECT_EQ(peer->Lookup(d.reply.handle(), "in").error(), EACCES);
  EXPECT_EQ(peer->Create(d.reply.handle(), "x").error(), EACCES);
  EXPECT_EQ(peer->Remove(root, "f").error(), EPERM);  // sticky directory
  EXPECT_EQ(chgrp(), EPERM);
  auto access = peer->New();
  access.mutable_access()->set_handle(f.reply.handle());
  access.mutable_access()->set_mask(pb::ACCESS_READ);
  EXPECT_EQ(peer->Do(access).error(), EACCES);
  peer->Become(1001, 1001, {2000});  // by a supplementary group
  EXPECT_EQ(peer->Open(f.reply.handle(), 3, pb::OPEN_READ).error(), 0);
  EXPECT_EQ(peer->Open(f.reply.handle(), 4, pb::OPEN_WRITE).error(), EACCES);
  access = peer->New();
  access.mutable_access()->set_handle(f.reply.handle());
  access.mutable_access()->set_mask(pb::ACCESS_READ | pb::ACCESS_WRITE);
  auto asked = peer->Do(access);
  EXPECT_EQ(asked.error(), EACCES);
  EXPECT_EQ(asked.reply.access(), static_cast<uint32_t>(pb::ACCESS_READ));
  peer->Become(0, 0);
  EXPECT_EQ(peer->Open(f.reply.handle(), 5, pb::OPEN_WRITE).error(), 0);
}

TEST_F(IdentityTest, ManyUsersAtOnce) {
  Begin(Squash::kNone);
  std::vector<std::thread> threads;
  for (uint32_t user = 1; user <= 6; ++user) {
    threads.emplace_back([&, user] {
      auto mine = Connect();
      mine->Become(1000 + user, 2000 + user);
      for (int i = 0; i < 100; ++i) {
        const std::string name = std::to_string(user) + "-" + std::to_string(i);
        mine->set_umask(user % 2 == 0 ? 077 : 0);
        auto made = mine->Create(root, name, 0, 0666);
        EXPECT_EQ(made.error(), 0);
        EXPECT_EQ(made.reply.attr().uid(), IsRoot() ? 1000 + user : geteuid());
        EXPECT_EQ(made.reply.attr().mode() & 0777, user % 2 == 0 ? 0600u : 0666u);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(CallersTest, SquashesRoot) {
  Begin(Squash::kRoot);
  peer->Become(0, 0, {0, 5});
  auto made = peer->Create(root, "f");
  ASSERT_EQ(made.error(), 0);
  EXPECT_EQ(made.reply.attr().uid(), 65534u);
  EXPECT_EQ(made.reply.attr().gid(), 65534u);
  WriteFile(dir / "secret", "s");
  chmod((dir / "secret").c_str(), 0600);
  auto secret = peer->Lookup(root, "secret");
  EXPECT_EQ(peer->Open(secret.reply.handle(), 1, pb::OPEN_READ).error(), EACCES);
  peer->Become(1000, 0);  // group 0 lends nothing either
  EXPECT_EQ(peer->Create(root, "g").reply.attr().gid(), 65534u);
  peer->Become(1000, 1000);
  EXPECT_EQ(peer->Create(root, "h").reply.attr().uid(), 1000u);
}

TEST_F(CallersTest, SquashesAll) {
  config.exports[0].anon_uid = 4242;
  config.exports[0].anon_gid = 4343;
  Begin(Squash::kAll);
  peer->Become(1000, 1000, {7});
  auto made = peer->Create(root, "f");
  EXPECT_EQ(made.reply.attr().uid(), 4242u);
  EXPECT_EQ(made.reply.attr().gid(), 4343u);
}

TEST_F(CallersTest, RootsPrivilegesAreNotLent) {
  Begin(Squash::kNone);
  peer->Become(1000, 1000);
  auto f = peer->Create(root, "f", 1, 0755);
  auto set = [&](const std::string& name, const std::string& value) {
    auto call = peer->New();
    call.mutable_setxattr()->mutable_object()->set_handle(f.reply.handle());
    call.mutable_setxattr()->set_name(name);
    call.mutable_setxattr()->set_value(value);
    return peer->Do(call).error();
  };
  EXPECT_EQ(set("trusted.x", "v"), EPERM);
  const std::string capability("\x01\0\0\x02\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  EXPECT_EQ(set("security.capability", capability), EPERM);
  EXPECT_EQ(set("user.x", "v"), 0);
  ASSERT_EQ(setxattr((dir / "f").c_str(), "trusted.hidden", "h", 1, 0), 0);
  auto list = peer->New();
  list.mutable_listxattr()->mutable_object()->set_handle(f.reply.handle());
  list.mutable_listxattr()->set_max_bytes(1000);
  EXPECT_EQ(peer->Do(list).reply.xattr().value().find("trusted"), std::string::npos);
  auto mknod = peer->New();
  mknod.mutable_mknod()->set_dir(root);
  mknod.mutable_mknod()->set_name("dev");
  mknod.mutable_mknod()->set_mode(S_IFCHR | 0666);
  mknod.mutable_mknod()->set_rdev_major(1);  // 0:0 is a whiteout, which anybody may make
  EXPECT_EQ(peer->Do(mknod).error(), EPERM);
  auto chown = peer->New();
  chown.mutable_setattr()->mutable_object()->set_handle(f.reply.handle());
  chown.mutable_setattr()->set_fields(pb::SET_UID);
  chown.mutable_setattr()->set_uid(0);
  EXPECT_EQ(peer->Do(chown).error(), EPERM);
}

TEST_F(IdentityTest, WritingClearsSetuidAsTheKernelDoes) {
  Begin(Squash::kNone);
  peer->Become(IsRoot() ? 1000 : geteuid(), IsRoot() ? 1000 : getegid());
  auto f = peer->Create(root, "f", 1, 0755);
  ASSERT_EQ(chmod((dir / "f").c_str(), 06755), 0);
  ASSERT_EQ(peer->Write(f.reply.handle(), 1, 0, "x").error(), 0);
  EXPECT_EQ(peer->GetAttr(f.reply.handle()).reply.attr().mode() & 07777, 0755u);
}

TEST_F(IdentityTest, OneMayUseWhatOneMadeUnusable) {
  Begin(Squash::kNone);
  peer->Become(1000, 1000);
  auto f = peer->Create(root, "f", 1, 0400);
  ASSERT_EQ(f.error(), 0);
  EXPECT_EQ(peer->Write(f.reply.handle(), 1, 0, "x").error(), 0);
}

TEST_F(CallersTest, AfterARestartWhoHadItOpenMayOpenWhatNobodyElseMay) {
  Begin(Squash::kNone);
  peer->Become(1000, 1000);
  auto f = peer->Create(root, "f", 1, 0400);
  ASSERT_EQ(f.error(), 0);
  Restart();
  EXPECT_EQ(peer->Open(f.reply.handle(), 2, pb::OPEN_WRITE).error(), EACCES);
  EXPECT_EQ(peer->Open(f.reply.handle(), 1, pb::OPEN_WRITE, true).error(), 0);
  EXPECT_EQ(peer->Write(f.reply.handle(), 1, 0, "y").error(), 0);
}

TEST_F(CallersTest, ExecutableTextIsReadableForExecution) {
  Begin(Squash::kNone);
  WriteFile(dir / "prog", "text");
  chmod((dir / "prog").c_str(), 0711);
  peer->Become(1000, 1000);
  auto f = peer->Lookup(root, "prog");
  EXPECT_EQ(peer->Open(f.reply.handle(), 1, pb::OPEN_READ).error(), EACCES);
  EXPECT_EQ(peer->Open(f.reply.handle(), 2, pb::OPEN_READ | pb::OPEN_EXEC).error(), 0);
  EXPECT_EQ(peer->Read(f.reply.handle(), 2, 0, 10).bulk, "text");
}

TEST_F(IdentityTest, ReadOnlyExportsRefuseEveryChange) {
  WriteFile(dir / "f", "x");
  Begin(Squash::kNone, true);
  EXPECT_TRUE(peer->greeting().read_only());
  auto f = peer->Lookup(root, "f");
  ASSERT_EQ(f.error(), 0);
  EXPECT_EQ(peer->Create(root, "g").error(), EROFS);
  EXPECT_EQ(peer->MkDir(root, "g").error(), EROFS);
  EXPECT_EQ(peer->SymLink(root, "g", "x").error(), EROFS);
  EXPECT_EQ(peer->Remove(root, "f").error(), EROFS);
  EXPECT_EQ(peer->RmDir(root, "f").error(), EROFS);
  EXPECT_EQ(peer->Rename(root, "f", root, "g").error(), EROFS);
  EXPECT_EQ(peer->Open(f.reply.handle(), 1, pb::OPEN_WRITE).error(), EROFS);
  EXPECT_EQ(peer->Write(f.reply.handle(), 0, 0, "y").error(), EROFS);
  EXPECT_EQ(peer->Open(f.reply.handle(), 2, pb::OPEN_READ).error(), 0);
  EXPECT_EQ(peer->Read(f.reply.handle(), 2, 0, 10).bulk, "x");
  auto set = peer->New();
  set.mutable_setattr()->mutable_object()->set_handle(f.reply.handle());
  set.mutable_setattr()->set_fields(pb::SET_MODE);
  EXPECT_EQ(peer->Do(set).error(), EROFS);
  EXPECT_EQ(ReadFile(dir / "f"), "x");
}

}  // namespace
}  // namespace tripwire::fs

// SPDX-License-Identifier: BSD-3-Clause
// Lookup, creation, removal, renaming and linking.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/fs-server/fixture.h"

namespace tripwire::fs {
namespace {

// Every test runs with the kernel's file handles and with remembered names.
class NamesTest : public FsTest, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    config.kernel_handles = GetParam();
    Start();
    peer = Connect();
    root = peer->root();
  }
  std::unique_ptr<Peer> peer;
  std::string root;
};

TEST_P(NamesTest, LookupFindsWhatIsThereAndRemembersWhatIsNot) {
  WriteFile(dir / "a", "hello");
  auto found = peer->Lookup(root, "a");
  ASSERT_EQ(found.error(), 0);
  EXPECT_EQ(found.reply.attr().size(), 5u);
  EXPECT_TRUE(S_ISREG(found.reply.attr().mode()));
  EXPECT_GT(found.reply.attr_cache_ms(), 0u);
  EXPECT_GT(found.reply.name_cache_ms(), 0u);
  EXPECT_EQ(peer->GetAttr(found.reply.handle()).reply.attr().ino(), found.reply.attr().ino());
  auto missing = peer->Lookup(root, "b");
  EXPECT_EQ(missing.error(), ENOENT);
  EXPECT_GT(missing.reply.name_cache_ms(), 0u);
}

// What a client needs to know that a name which it was not told of does not exist.
TEST_P(NamesTest, RepliesTellWhetherAllNamesAreKnown) {
  const auto made = peer->MkDir(root, "d");
  ASSERT_EQ(made.error(), 0);
  EXPECT_TRUE(made.reply.exact_names());
  const std::string d = made.reply.handle();
  auto look = peer->New();
  look.mutable_lookup()->set_dir(d);
  look.mutable_lookup()->set_name("nothing");
  look.mutable_lookup()->set_dir_change(true);
  auto missing = peer->Do(look);
  EXPECT_EQ(missing.error(), ENOENT);
  EXPECT_EQ(missing.reply.pre_change(), made.reply.attr().change());

  const auto file = peer->Create(d, "f");
  EXPECT_EQ(file.reply.pre_change(), made.reply.attr().change());
  auto list = peer->New();
  list.mutable_readdir()->mutable_object()->set_handle(d);
  const auto listed = peer->Do(list, {}, 4096);
  ASSERT_EQ(listed.error(), 0);
  EXPECT_TRUE(listed.reply.exact_names());
  EXPECT_GT(listed.reply.name_cache_ms(), 0u);
  EXPECT_EQ(listed.reply.pre_change(), file.reply.dir_attr().change());
  EXPECT_EQ(listed.reply.attr().change(), listed.reply.pre_change());

  usleep(20'000);  // a kernel's clock may tick no oftener
  WriteFile(dir / "d/behind", "");
  EXPECT_NE(peer->Do(look).reply.pre_change(), listed.reply.pre_change());
}

// Each change finds what the one before it left, so that a client can follow its own.
TEST_P(NamesTest, ChangesOfOneDirectoryJoinOn) {
  const auto made = peer->MkDir(root, "d");
  std::mutex mutex;
  std::vector<std::pair<uint64_t, uint64_t>> changes;  // after, before
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const std::string name = std::to_string(t) + "." + std::to_string(i);
        for (const auto& result : {peer->Create(made.reply.handle(), name),
                                   peer->Rename(made.reply.handle(), name,
                                                made.reply.handle(), name + "r"),
                                   peer->Remove(made.reply.handle(), name + "r")}) {
          EXPECT_EQ(result.error(), 0);
          EXPECT_GT(result.reply.name_cache_ms(), 0u);
          std::lock_guard lock(mutex);
          changes.emplace_back(result.reply.dir_attr().change(), result.reply.pre_change());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::sort(changes.begin(), changes.end());
  uint64_t now = made.reply.attr().change();
  for (const auto& [after, before] : changes) {
    ASSERT_EQ(before, now);
    now = after;
  }
}

TEST_P(NamesTest, AttributesAreThoseOfTheFile) {
  WriteFile(dir / "a", "hello");
  ASSERT_EQ(chmod((dir / "a").c_str(), 04751), 0);
  struct statx stx;
  ASSERT_EQ(statx(AT_FDCWD, (dir / "a").c_str(), 0, STATX_ALL, &stx), 0);
  const auto attr = peer->Lookup(root, "a").reply.attr();
  EXPECT_EQ(attr.ino(), stx.stx_ino);
  EXPECT_EQ(attr.mode(), stx.stx_mode);
  EXPECT_EQ(attr.nlink(), stx.stx_nlink);
  EXPECT_EQ(attr.uid(), stx.stx_uid);
  EXPECT_EQ(attr.gid(), stx.stx_gid);
  EXPECT_EQ(attr.blocks(), stx.stx_blocks);
  EXPECT_EQ(attr.blksize(), stx.stx_blksize);
  EXPECT_EQ(attr.mtime_s(), stx.stx_mtime.tv_sec);
  EXPECT_EQ(attr.mtime_ns(), stx.stx_mtime.tv_nsec);
  EXPECT_EQ(attr.ctime_ns(), stx.stx_ctime.tv_nsec);
  EXPECT_EQ(attr.has_btime(), (stx.stx_mask & STATX_BTIME) != 0);
  EXPECT_EQ(attr.btime_s(), stx.stx_btime.tv_sec);
}

TEST_P(NamesTest, NamesOfAnyBytes) {
  for (const std::string& name :
       {std::string("with space"), std::string("new\nline"), std::string("\xff\xfe\x80"),
        std::string(255, 'x'), std::string("..."), std::string("\\"), std::string("caf\xc3\xa9")}) {
    ASSERT_EQ(peer->Create(root, name).error(), 0) << name;
    EXPECT_EQ(access((dir / name).c_str(), F_OK), 0) << name;
    EXPECT_EQ(peer->Lookup(root, name).error(), 0) << name;
    EXPECT_EQ(peer->Remove(root, name).error(), 0) << name;
  }
}

TEST_P(NamesTest, WhatIsNoNameIsRefused) {
  for (const std::string& name : {std::string(), std::string("."), std::string(".."),
                                  std::string("a/b"), std::string("/"), std::string("../x"),
                                  std::string("a\0b", 3)}) {
    EXPECT_EQ(peer->Lookup(root, name).error(), EINVAL);
    EXPECT_EQ(peer->Create(root, name).error(), EINVAL);
    EXPECT_EQ(peer->MkDir(root, name).error(), EINVAL);
    EXPECT_EQ(peer->SymLink(root, name, "t").error(), EINVAL);
    EXPECT_EQ(peer->Remove(root, name).error(), EINVAL);
    EXPECT_EQ(peer->RmDir(root, name).error(), EINVAL);
    EXPECT_EQ(peer->Rename(root, name, root, "z").error(), EINVAL);
    EXPECT_EQ(peer->Rename(root, "z", root, name).error(), EINVAL);
  }
  EXPECT_EQ(peer->Lookup(root, std::string(256, 'x')).error(), ENAMETOOLONG);
}

TEST_P(NamesTest, CreateGuardedUncheckedExclusive) {
  auto made = peer->Create(root, "f", 1, 0640);
  ASSERT_EQ(made.error(), 0);
  EXPECT_EQ(made.reply.attr().mode(), S_IFREG | 0640u);
  EXPECT_EQ(made.reply.open().state(), 1u);
  EXPECT_EQ(peer->Write(made.reply.handle(), 1, 0, "data").error(), 0);
  EXPECT_EQ(ReadFile(dir / "f"), "data");
  EXPECT_EQ(peer->Create(root, "f", 2).error(), EEXIST);
  auto again = peer->Create(root, "f", 3, 0600, pb::CREATE_UNCHECKED);
  ASSERT_EQ(again.error(), 0);
  EXPECT_EQ(again.reply.handle(), made.reply.handle());
  EXPECT_EQ(ReadFile(dir / "f"), "data");
  auto truncated = peer->Create(root, "f", 4, 0600, pb::CREATE_UNCHECKED,
                                pb::OPEN_WRITE | pb::OPEN_TRUNCATE);
  ASSERT_EQ(truncated.error(), 0);
  EXPECT_EQ(truncated.reply.attr().size(), 0u);

  auto call = peer->New();
  auto* op = call.mutable_create();
  op->set_dir(root);
  op->set_name("once");
  op->set_how(pb::CREATE_EXCLUSIVE);
  op->set_verifier(0x1234567812345678);
  EXPECT_EQ(peer->Do(call).error(), 0);
  EXPECT_EQ(peer->Do(call).error(), 0);  // the same client again
  op->set_verifier(0x1234567812345679);
  EXPECT_EQ(peer->Do(call).error(), EEXIST);
}

TEST_P(NamesTest, CreateHonoursTheUmask) {
  peer->set_umask(077);
  EXPECT_EQ(peer->Create(root, "f", 0, 0666).reply.attr().mode() & 0777, 0600u);
  EXPECT_EQ(peer->MkDir(root, "d", 0777).reply.attr().mode() & 0777, 0700u);
  peer->set_umask(0);
  EXPECT_EQ(peer->Create(root, "g", 0, 0666).reply.attr().mode() & 0777, 0666u);
}

TEST_P(NamesTest, CreateNeverOpensWhatIsNoFile) {
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(peer->Create(root, "fifo", 1, 0600, pb::CREATE_UNCHECKED).error(), EEXIST);
  auto fifo = peer->Lookup(root, "fifo");
  ASSERT_EQ(fifo.error(), 0);
  EXPECT_EQ(peer->Open(fifo.reply.handle(), 2, pb::OPEN_READ).error(), ENXIO);
  ASSERT_EQ(symlink("/etc/passwd", (dir / "link").c_str()), 0);
  EXPECT_EQ(peer->Create(root, "link", 1, 0600, pb::CREATE_UNCHECKED).error(), EEXIST);
}

TEST_P(NamesTest, DirectoriesAndLinkCounts) {
  auto made = peer->MkDir(root, "d");
  ASSERT_EQ(made.error(), 0);
  EXPECT_TRUE(S_ISDIR(made.reply.attr().mode()));
  EXPECT_EQ(made.reply.attr().nlink(), 2u);
  EXPECT_EQ(made.reply.dir_attr().nlink(), 3u);
  EXPECT_EQ(peer->MkDir(root, "d").error(), EEXIST);
  EXPECT_EQ(peer->Remove(root, "d").error(), EISDIR);
  ASSERT_EQ(peer->Create(made.reply.handle(), "f").error(), 0);
  EXPECT_EQ(peer->RmDir(root, "d").error(), ENOTEMPTY);
  EXPECT_EQ(peer->Remove(made.reply.handle(), "f").error(), 0);
  auto gone = peer->RmDir(root, "d");
  EXPECT_EQ(gone.error(), 0);
  EXPECT_EQ(gone.reply.dir_attr().nlink(), 2u);
  EXPECT_EQ(peer->GetAttr(made.reply.handle()).error(), ESTALE);
  EXPECT_EQ(peer->RmDir(root, "d").error(), ENOENT);
}

TEST_P(NamesTest, SymlinksKeepOddTargetsAndAreNeverFollowed) {
  for (const std::string& target :
       {std::string("../../../etc/passwd"), std::string("/"), std::string(" "),
        std::string("\xff\n"), std::string(4095, 'y')}) {
    auto made = peer->SymLink(root, "l", target);
    ASSERT_EQ(made.error(), 0);
    auto call = peer->New();
    call.mutable_readlink()->set_handle(made.reply.handle());
    auto read = peer->Do(call);
    EXPECT_EQ(read.error(), 0);
    EXPECT_EQ(read.reply.target(), target);
    EXPECT_EQ(peer->Open(made.reply.handle(), 9, pb::OPEN_READ).error(), ELOOP);
    EXPECT_EQ(peer->Lookup(made.reply.handle(), "x").error(), ENOTDIR);
    EXPECT_EQ(peer->Remove(root, "l").error(), 0);
  }
  EXPECT_EQ(peer->SymLink(root, "l", std::string(4096, 'y')).error(), ENAMETOOLONG);
  EXPECT_EQ(peer->SymLink(root, "l", std::string("a\0b", 3)).error(), EINVAL);
  EXPECT_EQ(peer->SymLink(root, "l", "").error(), ENOENT);
}

TEST_P(NamesTest, RenameInAllItsForms) {
  auto a = peer->Create(root, "a");
  auto b = peer->Create(root, "b");
  auto d = peer->MkDir(root, "d");
  EXPECT_EQ(peer->Rename(root, "a", root, "b", pb::RENAME_FLAG_NOREPLACE).error(), EEXIST);
  auto swapped = peer->Rename(root, "a", root, "b", pb::RENAME_FLAG_EXCHANGE);
  ASSERT_EQ(swapped.error(), 0);
  EXPECT_EQ(peer->Lookup(root, "b").reply.attr().ino(), a.reply.attr().ino());
  EXPECT_EQ(peer->Lookup(root, "a").reply.attr().ino(), b.reply.attr().ino());
  auto moved = peer->Rename(root, "b", d.reply.handle(), "c");
  ASSERT_EQ(moved.error(), 0);
  EXPECT_EQ(moved.reply.handle(), a.reply.handle());
  EXPECT_EQ(peer->Lookup(root, "b").error(), ENOENT);
  EXPECT_EQ(peer->GetAttr(a.reply.handle()).error(), 0);
  // Over something: it is told which inode lost its name.
  auto over = peer->Rename(root, "a", d.reply.handle(), "c");
  ASSERT_EQ(over.error(), 0);
  EXPECT_EQ(over.reply.remove().ino(), a.reply.attr().ino());
  EXPECT_EQ(peer->GetAttr(a.reply.handle()).error(), ESTALE);
  EXPECT_EQ(peer->Rename(root, "d", d.reply.handle(), "loop").error(), EINVAL);
  EXPECT_EQ(peer->Rename(root, "nothing", root, "x").error(), ENOENT);
}

TEST_P(NamesTest, RenamedDirectoriesKeepTheirContents) {
  auto d = peer->MkDir(root, "d");
  auto sub = peer->MkDir(d.reply.handle(), "sub");
  auto f = peer->Create(sub.reply.handle(), "f");
  ASSERT_EQ(peer->Rename(root, "d", root, "e").error(), 0);
  files->exports()[0]->store->Purge(true);  // found anew, not remembered
  EXPECT_EQ(peer->GetAttr(f.reply.handle()).error(), 0);
  EXPECT_EQ(peer->Lookup(sub.reply.handle(), "f").error(), 0);
}

TEST_P(NamesTest, HardLinks) {
  auto f = peer->Create(root, "f");
  auto call = peer->New();
  call.mutable_link()->mutable_object()->set_handle(f.reply.handle());
  call.mutable_link()->set_dir(root);
  call.mutable_link()->set_name("g");
  auto linked = peer->Do(call);
  ASSERT_EQ(linked.error(), 0);
  EXPECT_EQ(linked.reply.attr().nlink(), 2u);
  EXPECT_EQ(linked.reply.handle(), f.reply.handle());
  EXPECT_EQ(peer->Do(call).error(), EEXIST);
  auto removed = peer->Remove(root, "f");
  EXPECT_EQ(removed.error(), 0);
  EXPECT_EQ(removed.reply.attr().nlink(), 1u);
  EXPECT_EQ(peer->Lookup(root, "g").reply.attr().ino(), f.reply.attr().ino());
  // A symbolic link can have two names too, without being followed.
  auto s = peer->SymLink(root, "s", "nowhere");
  call.mutable_link()->mutable_object()->set_handle(s.reply.handle());
  call.mutable_link()->set_name("t");
  auto both = peer->Do(call);
  ASSERT_EQ(both.error(), 0);
  EXPECT_TRUE(S_ISLNK(both.reply.attr().mode()));
  auto directory = peer->MkDir(root, "d");
  call.mutable_link()->mutable_object()->set_handle(directory.reply.handle());
  call.mutable_link()->set_name("u");
  EXPECT_EQ(peer->Do(call).error(), EPERM);
}

TEST_P(NamesTest, SpecialFiles) {
  auto call = peer->New();
  auto* op = call.mutable_mknod();
  op->set_dir(root);
  op->set_name("fifo");
  op->set_mode(S_IFIFO | 0644);
  auto fifo = peer->Do(call);
  ASSERT_EQ(fifo.error(), 0);
  EXPECT_TRUE(S_ISFIFO(fifo.reply.attr().mode()));
  op->set_name("sock");
  op->set_mode(S_IFSOCK | 0600);
  EXPECT_TRUE(S_ISSOCK(peer->Do(call).reply.attr().mode()));
  op->set_name("dir");
  op->set_mode(S_IFDIR | 0700);
  EXPECT_EQ(peer->Do(call).error(), EINVAL);
  op->set_name("dev");
  op->set_mode(S_IFCHR | 0600);
  op->set_rdev_major(1);
  op->set_rdev_minor(3);
  auto device = peer->Do(call);
  if (IsRoot()) {
    ASSERT_EQ(device.error(), 0);
    EXPECT_EQ(device.reply.attr().rdev_major(), 1u);
    EXPECT_EQ(device.reply.attr().rdev_minor(), 3u);
    EXPECT_EQ(peer->Open(device.reply.handle(), 5, pb::OPEN_READ).error(), ENXIO);
  } else {
    EXPECT_EQ(device.error(), EPERM);
  }
}

TEST_P(NamesTest, OpenFilesOutliveTheirName) {
  auto f = peer->Create(root, "f", 7);
  ASSERT_EQ(peer->Write(f.reply.handle(), 7, 0, "still here").error(), 0);
  ASSERT_EQ(peer->Remove(root, "f").error(), 0);
  files->exports()[0]->store->Purge(true);
  EXPECT_EQ(peer->Read(f.reply.handle(), 7, 0, 100).bulk, "still here");
  auto attr = peer->GetAttr(f.reply.handle(), 7);
  EXPECT_EQ(attr.error(), 0);
  EXPECT_EQ(attr.reply.attr().nlink(), 0u);
  EXPECT_EQ(peer->GetAttr(f.reply.handle()).error(), 0);  // also by its handle alone
  EXPECT_EQ(peer->Close(f.reply.handle(), 7).error(), 0);
  EXPECT_EQ(peer->GetAttr(f.reply.handle()).error(), ESTALE);
}

TEST_P(NamesTest, ANewInodeNeverGetsAnOldHandle) {
  auto first = peer->Create(root, "f");
  ASSERT_EQ(peer->Remove(root, "f").error(), 0);
  // Inode numbers are used again soon.
  for (int i = 0; i < 50; ++i) {
    auto next = peer->Create(root, "f");
    ASSERT_EQ(next.error(), 0);
    EXPECT_NE(next.reply.handle(), first.reply.handle());
    EXPECT_EQ(peer->GetAttr(first.reply.handle()).error(), ESTALE);
    ASSERT_EQ(peer->Remove(root, "f").error(), 0);
  }
}

// A number that another process is just giving to a file of its own is neither
// free nor a file, and the kernel is in no position to say.
TEST_P(NamesTest, ARemovedFileIsGoneWhateverOthersCreate) {
  std::vector<std::jthread> others;
  for (int i = 0; i < 2; ++i) {
    others.emplace_back([this, i](std::stop_token stop) {
      const std::string name = dir / ("other" + std::to_string(i));
      while (!stop.stop_requested()) {
        const int fd = open(name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        ASSERT_GE(fd, 0);
        close(fd);
        unlink(name.c_str());
      }
    });
  }
  for (int i = 0; i < 2000; ++i) {
    auto f = peer->Create(root, "f");
    ASSERT_EQ(peer->Remove(root, "f").error(), 0);
    ASSERT_EQ(peer->GetAttr(f.reply.handle()).error(), ESTALE) << "at " << i;
  }
}

TEST_P(NamesTest, TmpFilesGetANameLater) {
  auto call = peer->New();
  auto* op = call.mutable_tmpfile();
  op->set_dir(root);
  op->set_mode(0600);
  op->set_state(5);
  op->set_flags(pb::OPEN_READ | pb::OPEN_WRITE);
  auto made = peer->Do(call);
  ASSERT_EQ(made.error(), 0);
  EXPECT_EQ(made.reply.attr().nlink(), 0u);
  EXPECT_EQ(peer->Write(made.reply.handle(), 5, 0, "x").error(), 0);
  auto link = peer->New();
  link.mutable_link()->mutable_object()->set_handle(made.reply.handle());
  link.mutable_link()->mutable_object()->set_state(5);
  link.mutable_link()->set_dir(root);
  link.mutable_link()->set_name("named");
  ASSERT_EQ(peer->Do(link).error(), 0);
  EXPECT_EQ(ReadFile(dir / "named"), "x");
  EXPECT_EQ(peer->Lookup(root, "named").reply.handle(), made.reply.handle());
}

TEST_P(NamesTest, HandlesSurviveARestart) {
  auto d = peer->MkDir(root, "d");
  auto f = peer->Create(d.reply.handle(), "f");
  Restart();
  EXPECT_EQ(peer->GetAttr(f.reply.handle()).reply.attr().ino(), f.reply.attr().ino());
  EXPECT_EQ(peer->Lookup(d.reply.handle(), "f").error(), 0);
}

INSTANTIATE_TEST_SUITE_P(Handles, NamesTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Kernel" : "Mapped"; });

}  // namespace
}  // namespace tripwire::fs

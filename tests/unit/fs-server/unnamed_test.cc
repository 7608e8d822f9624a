// SPDX-License-Identifier: BSD-3-Clause
// Open files without a name, and servers that end while there are some.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <string>

#include "tests/unit/fs-server/fixture.h"

namespace tripwire::fs {
namespace {

// With the server's state on the same mount as the export, or not; by kernel handles or
// by names.
class UnnamedTest : public FsTest, public ::testing::WithParamInterface<std::pair<bool, bool>> {
 protected:
  void SetUp() override {
    config.kernel_handles = GetParam().first;
    if (GetParam().second) config.state_dir = "/dev/shm" + state.path().substr(state.path().rfind('/'));
    Start();
    a = Connect();
    a->on_recovered = [this](Peer& peer, const pb::GreetingReply&) {
      for (const auto& [handle, id] : open) {
        reopened = peer.Open(handle, id, kFlags, true).error();
      }
    };
  }
  void TearDown() override {
    // What a client still has open outlives a server that ends before it.
    for (const auto& [handle, id] : open) a->Close(handle, id);
    a.reset();
    Stop();
    EXPECT_FALSE(std::filesystem::exists(dir / UnnamedFiles::kDirectory));
    if (GetParam().second) std::filesystem::remove_all(config.state_dir);
  }
  std::string Make(const std::string& name, uint64_t id) {
    auto made = a->Create(a->root(), name, id);
    EXPECT_EQ(made.error(), 0);
    EXPECT_EQ(a->Write(made.reply.handle(), id, 0, "still here").error(), 0);
    open.emplace_back(made.reply.handle(), id);
    return made.reply.handle();
  }
  void ExpectAlive(const std::string& handle, uint64_t id) {
    auto attr = a->GetAttr(handle, id);
    EXPECT_EQ(attr.error(), 0);
    EXPECT_EQ(attr.reply.attr().nlink(), 0u);
    EXPECT_EQ(a->Read(handle, id, 0, 100).bulk, "still here");
  }
  size_t Kept() { return files->exports()[0]->unnamed->All().size(); }
  static constexpr uint32_t kFlags = pb::OPEN_READ | pb::OPEN_WRITE;
  std::unique_ptr<Peer> a;
  std::vector<std::pair<std::string, uint64_t>> open;
  int reopened = -1;
};

TEST_P(UnnamedTest, ARemovedFileOutlivesTheServer) {
  const std::string f = Make("f", 7);
  auto removed = a->Remove(a->root(), "f");
  ASSERT_EQ(removed.error(), 0);
  EXPECT_EQ(removed.reply.attr().nlink(), 0u);
  ExpectAlive(f, 7);
  Kill();
  Start();
  ExpectAlive(f, 7);
  EXPECT_EQ(reopened, 0);
  EXPECT_TRUE(a->List(a->root(), true).empty());
  // And ends when it is closed.
  EXPECT_EQ(Kept(), 1u);
  EXPECT_EQ(a->Close(f, 7).error(), 0);
  EXPECT_EQ(Kept(), 0u);
  EXPECT_EQ(a->GetAttr(f).error(), ESTALE);
}

TEST_P(UnnamedTest, AReplacedFileOutlivesTheServer) {
  const std::string f = Make("f", 7);
  Make("g", 8);
  ASSERT_EQ(a->Rename(a->root(), "g", a->root(), "f").error(), 0);
  ExpectAlive(f, 7);
  Restart();
  ExpectAlive(f, 7);
}

TEST_P(UnnamedTest, AFileThatNeverHadANameDoesToo) {
  for (const bool exclusive : {false, true}) {
    auto call = a->New();
    call.mutable_tmpfile()->set_dir(a->root());
    call.mutable_tmpfile()->set_mode(0600);
    call.mutable_tmpfile()->set_state(9);
    call.mutable_tmpfile()->set_flags(kFlags);
    call.mutable_tmpfile()->set_exclusive(exclusive);
    auto made = a->Do(call);
    if (made.error() == EOPNOTSUPP) GTEST_SKIP() << "no O_TMPFILE here";
    ASSERT_EQ(made.error(), 0);
    EXPECT_EQ(made.reply.attr().nlink(), 0u);
    const std::string f = made.reply.handle();
    EXPECT_EQ(a->Write(f, 9, 0, "still here").error(), 0);
    open = {{f, 9}};
    Kill();
    Start();
    ExpectAlive(f, 9);
    auto link = a->New();
    link.mutable_link()->mutable_object()->set_handle(f);
    link.mutable_link()->mutable_object()->set_state(9);
    link.mutable_link()->set_dir(a->root());
    link.mutable_link()->set_name("named");
    auto linked = a->Do(link);
    EXPECT_EQ(linked.error(), exclusive ? ENOENT : 0);
    EXPECT_EQ(a->Close(f, 9).error(), 0);
    if (!exclusive) {
      EXPECT_EQ(linked.reply.attr().nlink(), 1u);
      EXPECT_EQ(a->Lookup(a->root(), "named").reply.attr().nlink(), 1u);
      EXPECT_EQ(ReadFile(dir / "named"), "still here");
    }
    EXPECT_EQ(Kept(), 0u);
    open.clear();
  }
}

TEST_P(UnnamedTest, ItsDirectoryCanGo) {
  const std::string d = a->MkDir(a->root(), "d").reply.handle();
  auto made = a->Create(d, "f", 7);
  ASSERT_EQ(made.error(), 0);
  ASSERT_EQ(a->Remove(d, "f").error(), 0);
  EXPECT_TRUE(a->List(d, false).empty());
  EXPECT_EQ(a->RmDir(a->root(), "d").error(), 0);
  EXPECT_EQ(a->Close(made.reply.handle(), 7).error(), 0);
}

TEST_P(UnnamedTest, NobodySeesWhereItIsKept) {
  Make("f", 7);
  ASSERT_EQ(a->Remove(a->root(), "f").error(), 0);
  EXPECT_TRUE(a->List(a->root(), true).empty());
  EXPECT_TRUE(a->List(a->root(), false).empty());
  const std::string name = UnnamedFiles::kDirectory;
  EXPECT_EQ(a->Lookup(a->root(), name).error(), ENOENT);
  EXPECT_NE(a->RmDir(a->root(), name).error(), 0);
  EXPECT_NE(a->Create(a->root(), name).error(), 0);
  EXPECT_NE(a->Rename(a->root(), name, a->root(), "mine").error(), 0);
}

TEST_P(UnnamedTest, GoesWithItsClient) {
  const std::string f = Make("f", 7);
  ASSERT_EQ(a->Remove(a->root(), "f").error(), 0);
  a->Disconnect();
  EXPECT_TRUE(Eventually([&] { return Kept() == 0; }));
  a = Connect();
  EXPECT_EQ(a->GetAttr(f).error(), ESTALE);
}

TEST_P(UnnamedTest, GoesWhenItsClientNeverReturns) {
  const std::string f = Make("f", 7);
  ASSERT_EQ(a->Remove(a->root(), "f").error(), 0);
  open.clear();
  config.unclaimed_ms = 50;
  Kill();
  Start();
  EXPECT_TRUE(Eventually([&] { return Kept() == 0; }));
  EXPECT_EQ(a->GetAttr(f).error(), ESTALE);
}

TEST_P(UnnamedTest, CostsNothingWhenNothingIsRemoved) {
  const std::string f = Make("f", 7);
  EXPECT_EQ(Kept(), 0u);
  ASSERT_EQ(a->Create(a->root(), "closed").error(), 0);
  ASSERT_EQ(a->Remove(a->root(), "closed").error(), 0);
  EXPECT_EQ(Kept(), 0u);
}

INSTANTIATE_TEST_SUITE_P(All, UnnamedTest,
                         ::testing::Values(std::pair(true, false), std::pair(true, true),
                                           std::pair(false, false), std::pair(false, true)));

}  // namespace
}  // namespace tripwire::fs

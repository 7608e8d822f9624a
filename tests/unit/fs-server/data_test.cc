// SPDX-License-Identifier: BSD-3-Clause
// Reading, writing and what lies beside data: attributes, space, listings, xattrs.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "fs-server/exact_names.h"
#include "nic/base/fd.h"
#include "tests/unit/fs-server/fixture.h"

namespace tripwire::fs {
namespace {

class DataTest : public FsTest {
 protected:
  void SetUp() override {
    Start();
    peer = Connect();
    root = peer->root();
    auto made = peer->Create(root, "f", 1);
    ASSERT_EQ(made.error(), 0);
    f = made.reply.handle();
  }
  pb::Object* Target(pb::Object* object, uint64_t state = 1) {
    object->set_handle(f);
    object->set_state(state);
    return object;
  }
  std::unique_ptr<Peer> peer;
  std::string root;
  std::string f;
};

TEST_F(DataTest, WritesAndReadsBackAMebibyte) {
  std::string data(1 << 20, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 4096);
  auto written = peer->Write(f, 1, 123, data);
  ASSERT_EQ(written.error(), 0);
  EXPECT_EQ(written.reply.write().length(), data.size());
  EXPECT_EQ(written.reply.write().verifier(), peer->greeting().boot_verifier());
  EXPECT_EQ(written.reply.attr().size(), data.size() + 123);
  auto read = peer->Read(f, 1, 123, 1 << 20);
  ASSERT_EQ(read.error(), 0);
  EXPECT_TRUE(read.bulk == data);
  EXPECT_TRUE(read.reply.read().eof());
  EXPECT_FALSE(peer->Read(f, 1, 0, 100).reply.read().eof());
  EXPECT_EQ(peer->Read(f, 1, 5 << 20, 100).bulk, "");
}

TEST_F(DataTest, SmallDataTravelsInTheMessage) {
  auto call = peer->New();
  Target(call.mutable_write()->mutable_object());
  call.mutable_write()->set_data("inline");
  ASSERT_EQ(peer->Do(call).error(), 0);
  auto read = peer->New();
  Target(read.mutable_read()->mutable_object());
  read.mutable_read()->set_length(1 << 20);
  EXPECT_EQ(peer->Do(read).reply.read().data(), "inline");
}

TEST_F(DataTest, BeyondFourGibibytes) {
  const uint64_t far = (uint64_t{5} << 30) + 17;
  ASSERT_EQ(peer->Write(f, 1, far, "far").error(), 0);
  EXPECT_EQ(peer->Read(f, 1, far, 10).bulk, "far");
  EXPECT_EQ(peer->GetAttr(f).reply.attr().size(), far + 3);
  EXPECT_EQ(peer->Write(f, 1, UINT64_MAX - 1, "x").error(), EFBIG);
  EXPECT_EQ(peer->Read(f, 1, UINT64_MAX - 1, 10).error(), EINVAL);
}

TEST_F(DataTest, AppendsAreAtomicAndSayWhere) {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::set<uint64_t> offsets;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        auto call = peer->New();
        Target(call.mutable_write()->mutable_object());
        call.mutable_write()->set_append(true);
        auto result = peer->Do(call, std::string(10, static_cast<char>('a' + t)));
        EXPECT_EQ(result.error(), 0);
        std::lock_guard lock(mutex);
        EXPECT_TRUE(offsets.insert(result.reply.write().offset()).second);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const std::string all = ReadFile(dir / "f");
  ASSERT_EQ(all.size(), 2000u);
  for (size_t i = 0; i < all.size(); i += 10) {
    EXPECT_EQ(all.substr(i, 10), std::string(10, all[i]));
  }
  EXPECT_EQ(*offsets.rbegin(), 1990u);
}

TEST_F(DataTest, StatesCarryTheRightsTheyWereOpenedWith) {
  EXPECT_EQ(peer->Open(f, 2, pb::OPEN_READ).error(), 0);
  EXPECT_EQ(peer->Write(f, 2, 0, "x").error(), EBADF);
  EXPECT_EQ(peer->Open(f, 3, pb::OPEN_WRITE).error(), 0);
  EXPECT_EQ(peer->Read(f, 3, 0, 1).error(), EBADF);
  EXPECT_EQ(peer->Close(f, 3).error(), 0);
  auto lost = peer->Write(f, 3, 0, "x");
  EXPECT_EQ(lost.error(), EBADF);
  EXPECT_TRUE(lost.reply.state_lost());
  // A state is of one file only.
  auto other = peer->Create(root, "other", 4);
  EXPECT_EQ(peer->Write(f, 4, 0, "x").error(), EBADF);
  EXPECT_EQ(files->opens().size(), 3u);
}

TEST_F(DataTest, DirectAccess) {
  ASSERT_EQ(peer->Open(f, 2, pb::OPEN_READ | pb::OPEN_WRITE | pb::OPEN_DIRECT).error(), 0);
  const std::string block(8192, 'd');
  ASSERT_EQ(peer->Write(f, 2, 0, block).error(), 0);
  EXPECT_TRUE(peer->Read(f, 2, 0, 8192).bulk == block);
  EXPECT_EQ(peer->Read(f, 2, 8192, 4096).bulk, "");
}

TEST_F(DataTest, StableWritesAndCommit) {
  auto call = peer->New();
  Target(call.mutable_write()->mutable_object());
  call.mutable_write()->set_stable(pb::FILE_SYNC);
  auto written = peer->Do(call, "stable");
  ASSERT_EQ(written.error(), 0);
  EXPECT_EQ(written.reply.write().committed(), pb::FILE_SYNC);
  auto commit = peer->New();
  Target(commit.mutable_commit()->mutable_object());
  auto committed = peer->Do(commit);
  EXPECT_EQ(committed.error(), 0);
  EXPECT_EQ(committed.reply.commit().verifier(), written.reply.write().verifier());
  auto sync = peer->New();
  Target(sync.mutable_sync()->mutable_object());
  EXPECT_EQ(peer->Do(sync).error(), 0);
}

TEST_F(DataTest, SetAttrSetsEverything) {
  auto call = peer->New();
  auto* op = call.mutable_setattr();
  Target(op->mutable_object(), 0);
  op->set_fields(pb::SET_MODE | pb::SET_SIZE | pb::SET_ATIME | pb::SET_MTIME);
  op->set_mode(0600);
  op->set_size(100);
  op->set_atime_s(-5);
  op->set_atime_ns(7);
  op->set_mtime_s(1234567890);
  op->set_mtime_ns(999999999);
  const auto attr = peer->Do(call).reply.attr();
  EXPECT_EQ(attr.mode() & 07777, 0600u);
  EXPECT_EQ(attr.size(), 100u);
  EXPECT_EQ(attr.atime_s(), -5);
  EXPECT_EQ(attr.atime_ns(), 7u);
  EXPECT_EQ(attr.mtime_s(), 1234567890);
  EXPECT_EQ(attr.mtime_ns(), 999999999u);
  op->set_fields(pb::SET_MTIME_NOW);
  EXPECT_GT(peer->Do(call).reply.attr().mtime_s(), 1600000000);
  op->set_fields(pb::SET_MTIME);
  op->set_mtime_ns(0x3fffffff);  // UTIME_NOW is not for the wire
  EXPECT_EQ(peer->Do(call).error(), EINVAL);
  op->set_mtime_ns(0);
  op->set_fields(pb::SET_UID);
  op->set_uid(UINT32_MAX);
  EXPECT_EQ(peer->Do(call).error(), EINVAL);
  op->set_fields(pb::SET_SIZE);
  op->set_size(UINT64_MAX);
  EXPECT_EQ(peer->Do(call).error(), EFBIG);
}

TEST_F(DataTest, TheGuardStopsAChangeAfterAChange) {
  const auto before = peer->GetAttr(f).reply.attr();
  auto call = peer->New();
  auto* op = call.mutable_setattr();
  Target(op->mutable_object(), 0);
  op->set_fields(pb::SET_MODE | pb::SET_GUARD);
  op->set_mode(0611);
  op->set_guard_ctime_s(before.ctime_s());
  op->set_guard_ctime_ns(before.ctime_ns());
  EXPECT_EQ(peer->Do(call).error(), 0);
  op->set_mode(0622);
  EXPECT_EQ(peer->Do(call).error(), EAGAIN);
  EXPECT_EQ(peer->GetAttr(f).reply.attr().mode() & 0777, 0611u);
}

TEST_F(DataTest, SymlinksHaveTimesAndOwnersOfTheirOwn) {
  WriteFile(dir / "target", "");
  auto link = peer->SymLink(root, "l", "target");
  auto call = peer->New();
  auto* op = call.mutable_setattr();
  op->mutable_object()->set_handle(link.reply.handle());
  op->set_fields(pb::SET_MTIME);
  op->set_mtime_s(42);
  auto set = peer->Do(call);
  ASSERT_EQ(set.error(), 0);
  EXPECT_EQ(set.reply.attr().mtime_s(), 42);
  EXPECT_NE(peer->Lookup(root, "target").reply.attr().mtime_s(), 42);
}

TEST_F(DataTest, PreChangeTellsWhoElseWrote) {
  auto first = peer->Write(f, 1, 0, "a");
  auto second = peer->Write(f, 1, 1, "b");
  EXPECT_EQ(second.reply.pre_change(), first.reply.attr().change());
}

TEST_F(DataTest, SparseFiles) {
  ASSERT_EQ(peer->Write(f, 1, 1 << 20, "data").error(), 0);
  auto seek = [&](uint64_t offset, pb::SeekWhence whence) {
    auto call = peer->New();
    Target(call.mutable_seek()->mutable_object());
    call.mutable_seek()->set_offset(offset);
    call.mutable_seek()->set_whence(whence);
    return peer->Do(call);
  };
  EXPECT_EQ(seek(0, pb::SEEK_FOR_DATA).reply.offset(), 1u << 20);
  EXPECT_EQ(seek(0, pb::SEEK_FOR_HOLE).reply.offset(), 0u);
  EXPECT_EQ(seek(2 << 20, pb::SEEK_FOR_DATA).error(), ENXIO);
  EXPECT_EQ(seek(UINT64_MAX, pb::SEEK_FOR_DATA).error(), ENXIO);
  auto allocate = [&](uint32_t mode, uint64_t offset, uint64_t length) {
    auto call = peer->New();
    Target(call.mutable_fallocate()->mutable_object());
    call.mutable_fallocate()->set_mode(mode);
    call.mutable_fallocate()->set_offset(offset);
    call.mutable_fallocate()->set_length(length);
    return peer->Do(call);
  };
  EXPECT_EQ(allocate(0, 0, 2 << 20).reply.attr().size(), 2u << 20);
  EXPECT_EQ(allocate(FALLOC_FL_KEEP_SIZE, 2 << 20, 4096).reply.attr().size(), 2u << 20);
  EXPECT_EQ(allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096).error(), 0);
  EXPECT_EQ(peer->Read(f, 1, 1 << 20, 4).bulk, std::string(4, '\0'));
  EXPECT_EQ(allocate(0, 0, 0).error(), EINVAL);
  EXPECT_EQ(allocate(0, UINT64_MAX, 1).error(), EFBIG);
}

TEST_F(DataTest, CopiesWithinTheServer) {
  ASSERT_EQ(peer->Write(f, 1, 0, "0123456789").error(), 0);
  auto to = peer->Create(root, "to", 2);
  auto call = peer->New();
  auto* op = call.mutable_copy_range();
  Target(op->mutable_from());
  op->set_from_offset(2);
  op->mutable_to()->set_handle(to.reply.handle());
  op->mutable_to()->set_state(2);
  op->set_to_offset(1);
  op->set_length(100);
  auto copied = peer->Do(call);
  ASSERT_EQ(copied.error(), 0);
  EXPECT_EQ(copied.reply.count(), 8u);
  EXPECT_EQ(ReadFile(dir / "to"), std::string("\0", 1) + "23456789");
  op->set_from_offset(10);
  EXPECT_EQ(peer->Do(call).reply.count(), 0u);
}

TEST_F(DataTest, ExtendedAttributes) {
  auto set = [&](const std::string& name, const std::string& value, uint32_t flags, bool bulk) {
    auto call = peer->New();
    Target(call.mutable_setxattr()->mutable_object());
    call.mutable_setxattr()->set_name(name);
    call.mutable_setxattr()->set_flags(flags);
    if (!bulk) call.mutable_setxattr()->set_value(value);
    return peer->Do(call, bulk ? value : "").error();
  };
  auto get = [&](const std::string& name, uint32_t max, size_t room) {
    auto call = peer->New();
    Target(call.mutable_getxattr()->mutable_object());
    call.mutable_getxattr()->set_name(name);
    call.mutable_getxattr()->set_max_bytes(max);
    return peer->Do(call, {}, room);
  };
  EXPECT_EQ(set("user.a", "value", pb::XATTR_FLAG_CREATE, false), 0);
  EXPECT_EQ(set("user.a", "value", pb::XATTR_FLAG_CREATE, false), EEXIST);
  EXPECT_EQ(set("user.b", "value", pb::XATTR_FLAG_REPLACE, false), ENODATA);
  const std::string large(3000, 'v');
  EXPECT_EQ(set("user.c", large, 0, true), 0);
  EXPECT_EQ(get("user.a", 0, 0).reply.xattr().size(), 5u);
  EXPECT_EQ(get("user.a", 100, 0).reply.xattr().value(), "value");
  EXPECT_EQ(get("user.a", 3, 0).error(), ERANGE);
  EXPECT_EQ(get("user.c", 65536, 65536).bulk, large);
  EXPECT_EQ(get("user.none", 100, 0).error(), ENODATA);
  EXPECT_EQ(set(std::string("user.\0x", 7), "v", 0, false), EINVAL);
  EXPECT_EQ(set("", "v", 0, false), EINVAL);
  auto list = peer->New();
  Target(list.mutable_listxattr()->mutable_object());
  list.mutable_listxattr()->set_max_bytes(1000);
  EXPECT_EQ(peer->Do(list).reply.xattr().value(), std::string("user.a\0user.c\0", 14));
  auto remove = peer->New();
  Target(remove.mutable_removexattr()->mutable_object());
  remove.mutable_removexattr()->set_name("user.a");
  EXPECT_EQ(peer->Do(remove).error(), 0);
  EXPECT_EQ(peer->Do(remove).error(), ENODATA);
}

TEST_F(DataTest, FileSystemFacts) {
  auto stat = peer->New();
  stat.mutable_fsstat()->set_handle(root);
  auto result = peer->Do(stat);
  ASSERT_EQ(result.error(), 0);
  EXPECT_GT(result.reply.fsstat().blocks(), 0u);
  EXPECT_EQ(result.reply.fsstat().name_max(), 255u);
  auto info = peer->New();
  info.mutable_fsinfo()->set_handle(root);
  EXPECT_EQ(peer->Do(info).reply.fsinfo().read_max(), 1u << 20);
  auto conf = peer->New();
  conf.mutable_pathconf()->set_handle(root);
  EXPECT_EQ(peer->Do(conf).reply.pathconf().name_max(), 255u);
  auto null = peer->New();
  null.mutable_null();
  EXPECT_EQ(peer->Do(null).error(), 0);
}

TEST_F(DataTest, OnlyFileSystemsKnownToFoldNothingHaveExactNames) {
  const UniqueFd ours(open(dir.path().c_str(), O_RDONLY | O_DIRECTORY));
  EXPECT_TRUE(NamesAreExact(ours.get()));
  const UniqueFd proc(open("/proc/self", O_RDONLY | O_DIRECTORY));
  EXPECT_FALSE(NamesAreExact(proc.get()));
  EXPECT_FALSE(NamesAreExact(-1));
}

TEST_F(DataTest, ListsLargeDirectoriesExactlyOnce) {
  const int kFiles = 20000;
  for (int i = 0; i < kFiles; ++i) {
    const std::string path = dir / ("file-" + std::to_string(i));
    const int fd = open(path.c_str(), O_CREAT | O_WRONLY, 0600);
    ASSERT_GE(fd, 0);
    close(fd);
  }
  std::map<std::string, int> seen;
  for (const auto& entry : peer->List(root, false)) ++seen[entry.name()];
  EXPECT_EQ(seen.size(), kFiles + 1u);
  for (const auto& [name, count] : seen) EXPECT_EQ(count, 1) << name;
  seen.clear();
  for (const auto& entry : peer->List(root, true)) {
    ++seen[entry.name()];
    EXPECT_FALSE(entry.handle().empty());
    EXPECT_EQ(entry.attr().ino(), entry.ino());
  }
  EXPECT_EQ(seen.size(), kFiles + 1u);
}

TEST_F(DataTest, CookiesStayGoodWhileTheDirectoryChanges) {
  std::set<std::string> stay;
  for (int i = 0; i < 2000; ++i) {
    const std::string name = (i % 2 == 0 ? "stay-" : "go-") + std::to_string(i);
    ASSERT_EQ(peer->Create(root, name).error(), 0);
    if (i % 2 == 0) stay.insert(name);
  }
  std::multiset<std::string> seen;
  uint64_t cookie = 0;
  for (int round = 0;; ++round) {
    auto call = peer->New();
    call.mutable_readdir()->mutable_object()->set_handle(root);
    call.mutable_readdir()->set_cookie(cookie);
    auto part = peer->Do(call, {}, 4096);
    ASSERT_EQ(part.error(), 0);
    DirStreamReader reader(reinterpret_cast<const uint8_t*>(part.bulk.data()), part.bulk.size());
    pb::DirEntry entry;
    while (reader.Next(&entry)) {
      cookie = entry.cookie();
      if (stay.count(entry.name()) > 0) seen.insert(entry.name());
    }
    if (part.reply.readdir().eof()) break;
    // Remove some, add some, and once even restart the server.
    for (int i = 0; i < 20; ++i) {
      peer->Remove(root, "go-" + std::to_string(2 * (round * 20 + i) + 1));
      peer->Create(root, "new-" + std::to_string(round * 20 + i));
    }
    if (round == 3) Restart();
  }
  EXPECT_EQ(seen.size(), stay.size());
  EXPECT_EQ(std::set<std::string>(seen.begin(), seen.end()), stay);
}

TEST_F(DataTest, ListsThroughAnOpenDirectory) {
  auto d = peer->MkDir(root, "d");
  ASSERT_EQ(peer->Create(d.reply.handle(), "x").error(), 0);
  ASSERT_EQ(peer->Open(d.reply.handle(), 9, pb::OPEN_READ | pb::OPEN_DIRECTORY).error(), 0);
  EXPECT_EQ(peer->List(d.reply.handle(), true, 4096, 9).size(), 1u);
  EXPECT_EQ(peer->List(d.reply.handle(), true, 4096, 9).size(), 1u);  // from the start again
  auto call = peer->New();
  call.mutable_readdir()->mutable_object()->set_handle(f);
  EXPECT_EQ(peer->Do(call, {}, 4096).error(), ENOTDIR);
  call.mutable_readdir()->mutable_object()->set_handle(root);
  EXPECT_EQ(peer->Do(call, {}, 100).error(), EINVAL);
  EXPECT_EQ(peer->Open(f, 10, pb::OPEN_READ | pb::OPEN_DIRECTORY).error(), ENOTDIR);
  EXPECT_EQ(peer->Open(root, 11, pb::OPEN_WRITE).error(), EISDIR);
}

TEST_F(DataTest, TheLongestEntryFitsTheSmallestListing) {
  const std::string name(255, '\xff');
  const std::string d = peer->MkDir(root, "d").reply.handle();
  ASSERT_EQ(peer->Create(d, name).error(), 0);
  auto call = peer->New();
  call.mutable_readdir()->mutable_object()->set_handle(d);
  call.mutable_readdir()->set_plus(true);
  EXPECT_EQ(peer->Do(call, {}, 1023).error(), EINVAL);
  auto listed = peer->Do(call, {}, 1024);
  EXPECT_EQ(listed.error(), 0);
  EXPECT_EQ(listed.reply.readdir().entries(), 1u);
  EXPECT_TRUE(listed.reply.readdir().eof());
  // With every field as long as it can be.
  pb::DirEntry entry;
  entry.set_name(name);
  entry.set_ino(~0ull);
  entry.set_type(~0u);
  entry.set_cookie(~0ull);
  entry.set_handle(std::string(64, 'h'));
  pb::Attr* attr = entry.mutable_attr();
  const auto* reflection = attr->GetReflection();
  for (int i = 0; i < attr->GetDescriptor()->field_count(); ++i) {
    const auto* field = attr->GetDescriptor()->field(i);
    switch (field->cpp_type()) {
      case google::protobuf::FieldDescriptor::CPPTYPE_UINT64:
        reflection->SetUInt64(attr, field, ~0ull);
        break;
      case google::protobuf::FieldDescriptor::CPPTYPE_INT64:
        reflection->SetInt64(attr, field, INT64_MIN);
        break;
      case google::protobuf::FieldDescriptor::CPPTYPE_UINT32:
        reflection->SetUInt32(attr, field, ~0u);
        break;
      case google::protobuf::FieldDescriptor::CPPTYPE_BOOL:
        reflection->SetBool(attr, field, true);
        break;
      default:
        FAIL() << "a field of a kind unknown here: " << field->name();
    }
  }
  std::vector<uint8_t> room(1024);
  DirStreamWriter out(room.data(), room.size());
  EXPECT_TRUE(out.Append(entry)) << entry.ByteSizeLong();
}

}  // namespace
}  // namespace tripwire::fs

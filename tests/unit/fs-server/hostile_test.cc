// SPDX-License-Identifier: BSD-3-Clause
// What a client that is no friend may send, and what the file system itself may do
// behind the server's back. Nothing outside the export is ever reached.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <random>
#include <string>
#include <thread>

#include "fs-server/handle.h"
#include "tests/unit/fs-server/fixture.h"

namespace tripwire::fs {
namespace {

class HostileTest : public FsTest {
 protected:
  void SetUp() override {
    WriteFile(outside / "secret", "secret");
    WriteFile(dir / "f", "inside");
    Start();
    peer = Connect();
    root = peer->root();
  }
  // Raw bytes as a call; the reply's error, or -1.
  int Raw(const std::string& bytes) {
    rpc::Request request;
    request.message = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
    request.timeout_ns = 30 * kSecond;
    rpc::Response response;
    if (!peer->client().Invoke(request, &response).ok()) return -1;
    pb::Reply reply;
    EXPECT_TRUE(reply.ParseFromArray(response.message.data(),
                                     static_cast<int>(response.message.size())));
    return reply.error();
  }
  TempDir outside;
  std::unique_ptr<Peer> peer;
  std::string root;
};

TEST_F(HostileTest, MalformedMessages) {
  EXPECT_EQ(Raw(""), EOPNOTSUPP);
  EXPECT_EQ(Raw("\xff\xff\xff\xff"), EPROTO);
  EXPECT_EQ(Raw(std::string("\x12\xff\xff\xff\xff\x0f", 6)), EPROTO);
  std::mt19937 random(1);
  auto sample = peer->New();
  sample.mutable_lookup()->set_dir(root);
  sample.mutable_lookup()->set_name("f");
  const std::string good = sample.SerializeAsString();
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = good;
    for (int n = static_cast<int>(random() % 4) + 1; n > 0; --n) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (random() % 3 == 0) bytes.resize(random() % bytes.size());
    EXPECT_GE(Raw(bytes), 0);
  }
  EXPECT_EQ(peer->Lookup(root, "f").error(), 0);
}

TEST_F(HostileTest, RandomCallsOfEveryKindAreAnswered) {
  std::mt19937_64 random(2);
  const auto* descriptor = pb::Call::descriptor();
  auto f = peer->Lookup(root, "f");
  for (int i = 0; i < 4000; ++i) {
    auto call = peer->New();
    const auto* oneof = descriptor->oneof_decl(0);
    const auto* field = oneof->field(static_cast<int>(random() % oneof->field_count()));
    auto* op = call.GetReflection()->MutableMessage(&call, field);
    std::function<void(google::protobuf::Message*)> fill = [&](google::protobuf::Message* m) {
      const auto* d = m->GetDescriptor();
      const auto* r = m->GetReflection();
      for (int k = 0; k < d->field_count(); ++k) {
        const auto* at = d->field(k);
        if (at->is_repeated() || random() % 4 == 0) continue;
        switch (at->cpp_type()) {
          case google::protobuf::FieldDescriptor::CPPTYPE_UINT32:
            r->SetUInt32(m, at, static_cast<uint32_t>(random() >> (random() % 64)));
            break;
          case google::protobuf::FieldDescriptor::CPPTYPE_UINT64:
            r->SetUInt64(m, at, random() >> (random() % 64));
            break;
          case google::protobuf::FieldDescriptor::CPPTYPE_INT64:
            r->SetInt64(m, at, static_cast<int64_t>(random()));
            break;
          case google::protobuf::FieldDescriptor::CPPTYPE_BOOL:
            r->SetBool(m, at, random() % 2 == 0);
            break;
          case google::protobuf::FieldDescriptor::CPPTYPE_ENUM:
            r->SetEnumValue(m, at, static_cast<int>(random() % 5));
            break;
          case google::protobuf::FieldDescriptor::CPPTYPE_STRING: {
            const std::string handles[] = {root, f.reply.handle(), std::string(random() % 70, 'h'),
                                           "name", "f", "../..", std::string(random() % 300, '/')};
            r->SetString(m, at, handles[random() % 7]);
            break;
          }
          case google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE:
            fill(r->MutableMessage(m, at));
            break;
          default:
            break;
        }
      }
    };
    fill(op);
    if (call.has_lock() && call.lock().action() == pb::LOCK_ACTION_WAIT) continue;
    EXPECT_GE(peer->Do(call, {}, random() % 2 == 0 ? 4096 : 0).error(), 0) << call.DebugString();
  }
  EXPECT_EQ(ReadFile(outside / "secret"), "secret");
  EXPECT_EQ(peer->GetAttr(root).error(), 0);
}

TEST_F(HostileTest, HandlesCannotBeForged) {
  const std::string good = peer->Lookup(root, "f").reply.handle();
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      EXPECT_EQ(peer->GetAttr(bad).error(), ESTALE);
    }
    EXPECT_EQ(peer->GetAttr(good.substr(0, i)).error(), ESTALE);
  }
  EXPECT_EQ(peer->GetAttr(good + "x").error(), ESTALE);
  EXPECT_EQ(peer->GetAttr(std::string(1000, 'x')).error(), ESTALE);
}

TEST_F(HostileTest, HandlesAreOfOneExportOnly) {
  ExportConfig other;
  other.name = "other";
  other.directory = outside.path();
  other.squash = Squash::kNone;
  config.exports.push_back(other);
  peer.reset();
  Restart();
  peer = Connect();
  auto there = Connect("other");
  auto secret = there->Lookup(there->root(), "secret");
  ASSERT_EQ(secret.error(), 0);
  EXPECT_EQ(peer->GetAttr(secret.reply.handle()).error(), ESTALE);
}

TEST_F(HostileTest, SymlinksLeadNowhere) {
  ASSERT_EQ(symlink(outside.path().c_str(), (dir / "out").c_str()), 0);
  ASSERT_EQ(symlink((outside / "secret").c_str(), (dir / "s").c_str()), 0);
  auto out = peer->Lookup(root, "out");
  ASSERT_EQ(out.error(), 0);
  EXPECT_TRUE(S_ISLNK(out.reply.attr().mode()));
  EXPECT_EQ(peer->Lookup(out.reply.handle(), "secret").error(), ENOTDIR);
  EXPECT_EQ(peer->Create(out.reply.handle(), "new").error(), ENOTDIR);
  auto s = peer->Lookup(root, "s");
  EXPECT_EQ(peer->Open(s.reply.handle(), 1, pb::OPEN_READ).error(), ELOOP);
  auto truncate = peer->New();
  truncate.mutable_setattr()->mutable_object()->set_handle(s.reply.handle());
  truncate.mutable_setattr()->set_fields(pb::SET_SIZE);
  EXPECT_NE(peer->Do(truncate).error(), 0);
  truncate.mutable_setattr()->set_fields(pb::SET_MODE);
  truncate.mutable_setattr()->set_mode(0777);
  peer->Do(truncate);
  auto xattr = peer->New();
  xattr.mutable_setxattr()->mutable_object()->set_handle(s.reply.handle());
  xattr.mutable_setxattr()->set_name("user.x");
  EXPECT_NE(peer->Do(xattr).error(), 0);
  struct stat st;
  ASSERT_EQ(stat((outside / "secret").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0644u);
  EXPECT_EQ(ReadFile(outside / "secret"), "secret");
}

// Somebody swaps a directory for a link while names are walked and files made.
TEST_F(HostileTest, RacingSymlinksLeadNowhere) {
  std::filesystem::create_directory(dir / "d");
  WriteFile(dir / "d/secret", "inside");
  ASSERT_EQ(symlink(outside.path().c_str(), (dir / "l").c_str()), 0);
  const auto outside_entries = [&] {
    size_t n = 0;
    for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator(outside.path())) ++n;
    return n;
  };
  std::atomic<bool> stop{false};
  std::thread swapper([&] {
    while (!stop) {
      syscall(SYS_renameat2, AT_FDCWD, (dir / "d").c_str(), AT_FDCWD, (dir / "l").c_str(),
              2 /* RENAME_EXCHANGE */);
    }
  });
  for (int i = 0; i < 2000; ++i) {
    auto d = peer->Lookup(root, "d");
    if (d.error() != 0) continue;
    auto secret = peer->Lookup(d.reply.handle(), "secret");
    if (secret.error() == 0 && peer->Open(secret.reply.handle(), 1, pb::OPEN_READ).error() == 0) {
      EXPECT_EQ(peer->Read(secret.reply.handle(), 1, 0, 100).bulk, "inside");
      peer->Close(secret.reply.handle(), 1);
    }
    peer->Create(d.reply.handle(), "made", 0, 0644, pb::CREATE_UNCHECKED);
  }
  stop = true;
  swapper.join();
  EXPECT_EQ(outside_entries(), 1u);
}

TEST_F(HostileTest, ADirectoryMovedOutIsNoLongerServed) {
  auto d = peer->MkDir(root, "d");
  auto sub = peer->MkDir(d.reply.handle(), "sub");
  std::filesystem::rename(dir / "d", outside / "d");
  files->exports()[0]->store->Purge(true);
  EXPECT_EQ(peer->Lookup(d.reply.handle(), "sub").error(), ESTALE);
  EXPECT_EQ(peer->Create(sub.reply.handle(), "x").error(), ESTALE);
}

TEST_F(HostileTest, MountsBelowTheExportAreServed) {
  std::filesystem::create_directory(dir / "m");
  if (mount("tmpfs", (dir / "m").c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "may not mount here";
  }
  auto m = peer->Lookup(root, "m");
  ASSERT_EQ(m.error(), 0);
  EXPECT_NE(m.reply.attr().fsid(), peer->GetAttr(root).reply.attr().fsid());
  auto f = peer->Create(m.reply.handle(), "f", 1);
  ASSERT_EQ(f.error(), 0);
  EXPECT_EQ(peer->Write(f.reply.handle(), 1, 0, "on tmpfs").error(), 0);
  EXPECT_EQ(ReadFile(dir / "m/f"), "on tmpfs");
  EXPECT_EQ(peer->List(m.reply.handle(), true).size(), 1u);
  bool listed = false;
  for (const auto& entry : peer->List(root, true)) {
    if (entry.name() != "m") continue;
    listed = true;
    EXPECT_EQ(entry.handle(), m.reply.handle());
  }
  EXPECT_TRUE(listed);
  Restart();  // found again by its handle alone
  EXPECT_EQ(peer->GetAttr(f.reply.handle()).error(), 0);
  EXPECT_EQ(peer->Rename(root, "f", m.reply.handle(), "g").error(), EXDEV);
  EXPECT_EQ(peer->RmDir(root, "m").error(), EBUSY);
  peer.reset();
  Stop();
  EXPECT_EQ(umount2((dir / "m").c_str(), MNT_DETACH), 0);
}

TEST_F(HostileTest, ThousandsOfKnownFilesCostNoDescriptors) {
  config.cached_fds = 64;
  Restart();
  std::vector<std::string> handles;
  for (int i = 0; i < 3000; ++i) {
    handles.push_back(peer->Create(root, "n" + std::to_string(i)).reply.handle());
  }
  size_t open = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator("/proc/self/fd")) ++open;
  EXPECT_LT(open, 300u);
  for (const auto& handle : handles) EXPECT_EQ(peer->GetAttr(handle).error(), 0);
}

TEST_F(HostileTest, GreetingsThatMakeNoSenseAreRefused) {
  auto greet = [&](const std::string& bytes) {
    rpc::ClientOptions options;
    options.greeting.assign(bytes.begin(), bytes.end());
    return net.Connect(std::move(options)).status();
  };
  EXPECT_FALSE(greet("\xff\xff").ok());
  pb::Greeting hello;
  hello.set_protocol_version(99);
  EXPECT_FALSE(greet(hello.SerializeAsString()).ok());
  hello.set_protocol_version(pb::PROTOCOL_VERSION);
  hello.set_export_name("nothing");
  const auto status = greet(hello.SerializeAsString());
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(status.message().find("data"), std::string::npos);  // names what there is
  hello.set_list_exports(true);
  EXPECT_TRUE(greet(hello.SerializeAsString()).ok());
}

TEST(ConfigTest, ParsesExports) {
  auto plain = ParseExport("data=/srv/data");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->name, "data");
  EXPECT_EQ(plain->directory, "/srv/data");
  EXPECT_EQ(plain->squash, Squash::kRoot);
  EXPECT_FALSE(plain->read_only);
  auto full = ParseExport("d=/a\\,b=c,ro,squash=all,anonuid=7,anongid=8");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->directory, "/a,b=c");
  EXPECT_TRUE(full->read_only);
  EXPECT_EQ(full->squash, Squash::kAll);
  EXPECT_EQ(full->anon_uid, 7u);
  EXPECT_EQ(full->anon_gid, 8u);
  for (const char* bad : {"", "x", "=/d", "x=", "a b=/d", "a/b=/d", "x=/d,bogus", "x=/d,squash=me",
                          "x=/d,anonuid=-1", "x=/d,anonuid=4294967295", "a:b=/d"}) {
    EXPECT_FALSE(ParseExport(bad).ok()) << bad;
  }
}

TEST(ConfigTest, ServersThatCannotStartSayWhy) {
  TempDir dir, state;
  ServerConfig config;
  config.state_dir = state.path();
  EXPECT_FALSE(FileServer::Create(config).ok());
  config.exports.push_back({"a", dir / "missing"});
  const auto missing = FileServer::Create(config).status();
  EXPECT_NE(missing.message().find("missing"), std::string::npos);
  WriteFile(dir / "file", "");
  config.exports[0].directory = dir / "file";
  EXPECT_FALSE(FileServer::Create(config).ok());
  config.exports[0].directory = dir.path();
  config.exports.push_back(config.exports[0]);
  EXPECT_NE(FileServer::Create(config).status().message().find("two exports"), std::string::npos);
}

TEST(SipHashTest, KnownAnswers) {
  std::array<uint8_t, 16> key;
  for (uint8_t i = 0; i < 16; ++i) key[i] = i;
  uint8_t input[15];
  for (uint8_t i = 0; i < 15; ++i) input[i] = i;
  EXPECT_EQ(SipHash(key, input, 15), 0xa129ca6149be45e5u);  // the paper's appendix A
}

}  // namespace
}  // namespace tripwire::fs

// SPDX-License-Identifier: BSD-3-Clause
#include "tests/unit/fs-server/fixture.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace tripwire::fs {

TempDir::TempDir() {
  const char* base = std::getenv("TMPDIR");
  std::string pattern = std::string(base != nullptr ? base : "/tmp") + "/tripwire-test-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  chmod(pattern.c_str(), 0755);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Peer::Peer(rpc::Loopback& net, const std::string& export_name) {
  creds_.set_uid(geteuid());
  creds_.set_gid(getegid());
  creds_.set_umask(022);
  pb::Greeting hello;
  hello.set_protocol_version(pb::PROTOCOL_VERSION);
  hello.set_export_name(export_name);
  hello.set_client_name("test");
  rpc::ClientOptions options;
  const std::string bytes = hello.SerializeAsString();
  options.greeting.assign(bytes.begin(), bytes.end());
  options.connect_timeout_ns = kSecond / 2;
  options.on_notify = [this](rpc::Bytes message) {
    pb::Notice notice;
    EXPECT_TRUE(notice.ParseFromArray(message.data(), static_cast<int>(message.size())));
    if (on_notice) on_notice(notice);
    std::lock_guard lock(mutex_);
    notices_.push_back(notice);
  };
  options.on_recovered = [this](rpc::Bytes message) {
    pb::GreetingReply reply;
    EXPECT_TRUE(reply.ParseFromArray(message.data(), static_cast<int>(message.size())));
    if (on_recovered) on_recovered(*this, reply);
  };
  auto client = net.Connect(std::move(options));
  if (!client.ok()) {
    ADD_FAILURE() << client.status();
    std::abort();
  }
  client_ = *std::move(client);
  const auto& reply = client_->greeting_reply();
  EXPECT_TRUE(greeting_.ParseFromArray(reply.data(), static_cast<int>(reply.size())));
}

Peer::Result Peer::Do(const pb::Call& call, const std::string& bulk, size_t bulk_room,
                      rpc::CancelToken* cancel, bool during_recovery) {
  const std::string bytes = call.SerializeAsString();
  const iovec part{const_cast<char*>(bulk.data()), bulk.size()};
  rpc::Request request;
  request.message = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  if (!bulk.empty()) request.bulk = {&part, 1};
  request.bulk_reply_capacity = bulk_room;
  request.during_recovery = during_recovery;
  request.timeout_ns = 30 * kSecond;
  rpc::Response response;
  Result result;
  result.status = client_->Invoke(request, &response, cancel);
  if (!result.status.ok()) return result;
  EXPECT_TRUE(result.reply.ParseFromArray(response.message.data(),
                                          static_cast<int>(response.message.size())));
  EXPECT_LE(response.message.size(), client_->message_bytes());
  if (response.bulk) {
    result.bulk.assign(reinterpret_cast<const char*>(response.bulk.data()), response.bulk_bytes);
  }
  return result;
}

pb::Call Peer::New() const {
  pb::Call call;
  *call.mutable_creds() = creds_;
  return call;
}

void Peer::Become(uint32_t uid, uint32_t gid, std::vector<uint32_t> groups) {
  creds_.set_uid(uid);
  creds_.set_gid(gid);
  creds_.clear_groups();
  for (const uint32_t group : groups) creds_.add_groups(group);
}

Peer::Result Peer::Lookup(const std::string& dir, const std::string& name) {
  auto call = New();
  call.mutable_lookup()->set_dir(dir);
  call.mutable_lookup()->set_name(name);
  return Do(call);
}

Peer::Result Peer::GetAttr(const std::string& handle, uint64_t state) {
  auto call = New();
  call.mutable_getattr()->mutable_object()->set_handle(handle);
  call.mutable_getattr()->mutable_object()->set_state(state);
  return Do(call);
}

Peer::Result Peer::Create(const std::string& dir, const std::string& name, uint64_t state,
                          uint32_t mode, pb::CreateMode how, uint32_t flags) {
  auto call = New();
  auto* op = call.mutable_create();
  op->set_dir(dir);
  op->set_name(name);
  op->set_state(state);
  op->set_mode(mode);
  op->set_how(how);
  op->set_flags(flags);
  return Do(call);
}

Peer::Result Peer::MkDir(const std::string& dir, const std::string& name, uint32_t mode) {
  auto call = New();
  call.mutable_mkdir()->set_dir(dir);
  call.mutable_mkdir()->set_name(name);
  call.mutable_mkdir()->set_mode(mode);
  return Do(call);
}

Peer::Result Peer::SymLink(const std::string& dir, const std::string& name,
                           const std::string& target) {
  auto call = New();
  call.mutable_symlink()->set_dir(dir);
  call.mutable_symlink()->set_name(name);
  call.mutable_symlink()->set_target(target);
  return Do(call);
}

Peer::Result Peer::Remove(const std::string& dir, const std::string& name) {
  auto call = New();
  call.mutable_remove()->set_dir(dir);
  call.mutable_remove()->set_name(name);
  return Do(call);
}

Peer::Result Peer::RmDir(const std::string& dir, const std::string& name) {
  auto call = New();
  call.mutable_rmdir()->set_dir(dir);
  call.mutable_rmdir()->set_name(name);
  return Do(call);
}

Peer::Result Peer::Rename(const std::string& dir, const std::string& name,
                          const std::string& new_dir, const std::string& new_name,
                          uint32_t flags) {
  auto call = New();
  auto* op = call.mutable_rename();
  op->set_dir(dir);
  op->set_name(name);
  op->set_new_dir(new_dir);
  op->set_new_name(new_name);
  op->set_flags(flags);
  return Do(call);
}

Peer::Result Peer::Open(const std::string& handle, uint64_t state, uint32_t flags, bool reclaim) {
  auto call = New();
  auto* op = call.mutable_open();
  op->set_handle(handle);
  op->set_state(state);
  op->set_flags(flags);
  op->set_reclaim(reclaim);
  return Do(call, {}, 0, nullptr, reclaim);
}

Peer::Result Peer::Close(const std::string& handle, uint64_t state) {
  auto call = New();
  call.mutable_close()->set_handle(handle);
  call.mutable_close()->set_state(state);
  return Do(call);
}

Peer::Result Peer::Write(const std::string& handle, uint64_t state, uint64_t offset,
                         const std::string& data) {
  auto call = New();
  auto* op = call.mutable_write();
  op->mutable_object()->set_handle(handle);
  op->mutable_object()->set_state(state);
  op->set_offset(offset);
  return Do(call, data);
}

Peer::Result Peer::Read(const std::string& handle, uint64_t state, uint64_t offset,
                        uint32_t length) {
  auto call = New();
  auto* op = call.mutable_read();
  op->mutable_object()->set_handle(handle);
  op->mutable_object()->set_state(state);
  op->set_offset(offset);
  op->set_length(length);
  return Do(call, {}, length);
}

std::vector<pb::DirEntry> Peer::List(const std::string& handle, bool plus, size_t room,
                                     uint64_t state) {
  std::vector<pb::DirEntry> all;
  uint64_t cookie = 0;
  for (int round = 0; round < 100000; ++round) {
    auto call = New();
    auto* op = call.mutable_readdir();
    op->mutable_object()->set_handle(handle);
    op->mutable_object()->set_state(state);
    op->set_cookie(cookie);
    op->set_plus(plus);
    const Result result = Do(call, {}, room);
    EXPECT_EQ(result.error(), 0);
    if (result.error() != 0) return all;
    DirStreamReader reader(reinterpret_cast<const uint8_t*>(result.bulk.data()),
                           result.bulk.size());
    pb::DirEntry entry;
    uint32_t entries = 0;
    while (reader.Next(&entry)) {
      ++entries;
      cookie = entry.cookie();
      all.push_back(entry);
    }
    EXPECT_FALSE(reader.malformed());
    EXPECT_EQ(entries, result.reply.readdir().entries());
    if (result.reply.readdir().eof()) return all;
    EXPECT_GT(entries, 0u);
    if (entries == 0) return all;
  }
  return all;
}

pb::Call Peer::LockCall(const std::string& handle, pb::LockKind kind, pb::LockType type,
                        pb::LockAction action, uint64_t owner, uint64_t start,
                        uint64_t length) const {
  auto call = New();
  auto* op = call.mutable_lock();
  op->mutable_object()->set_handle(handle);
  op->set_kind(kind);
  op->set_type(type);
  op->set_action(action);
  op->set_owner(owner);
  op->set_start(start);
  op->set_length(length);
  op->set_pid(static_cast<uint32_t>(owner));
  return call;
}

std::vector<pb::Notice> Peer::notices() {
  std::lock_guard lock(mutex_);
  return notices_;
}

FsTest::FsTest() {
  ExportConfig exported;
  exported.name = "data";
  exported.directory = dir.path();
  exported.squash = Squash::kNone;
  config.exports.push_back(exported);
  config.state_dir = state.path();
  config.sessions = 8;
  config.server_name = "here";
}

FsTest::~FsTest() {
  if (server) Stop();
}

void FsTest::Start() {
  auto created = FileServer::Create(config);
  ASSERT_TRUE(created.ok()) << created.status();
  files = *std::move(created);
  server = net.Serve(FileServer::RpcOptions(), files->Callbacks());
}

void FsTest::Stop() {
  files->Shutdown();
  server.reset();
  files.reset();
}

void FsTest::Kill() {
  net.Kill();
  Stop();
}

std::unique_ptr<Peer> FsTest::Connect(const std::string& name) {
  return std::make_unique<Peer>(net, name);
}

bool Eventually(const std::function<bool()>& f) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (std::chrono::steady_clock::now() < end) {
    if (f()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return f();
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void WriteFile(const std::string& path, const std::string& data) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << data;
}

bool IsRoot() { return geteuid() == 0; }

}  // namespace tripwire::fs

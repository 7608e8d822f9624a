// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_FS_SERVER_FIXTURE_H_
#define TRIPWIRE_TESTS_UNIT_FS_SERVER_FIXTURE_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fs-server/file_server.h"
#include "fs-server/proto/dir_stream.h"
#include "fs-server/proto/fs.pb.h"
#include "fs-server/testing/loopback.h"

namespace tripwire::fs {

// A directory under $TMPDIR that goes away with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// A client that speaks the file protocol, one call at a time or many from threads.
class Peer {
 public:
  Peer(rpc::Loopback& net, const std::string& export_name);

  struct Result {
    absl::Status status;
    pb::Reply reply;
    std::string bulk;
    int error() const { return status.ok() ? reply.error() : -1; }
  };
  Result Do(const pb::Call& call, const std::string& bulk = {}, size_t bulk_room = 0,
            rpc::CancelToken* cancel = nullptr, bool during_recovery = false);

  // A call as this peer's user.
  pb::Call New() const;
  void Become(uint32_t uid, uint32_t gid, std::vector<uint32_t> groups = {});
  void set_umask(uint32_t mask) { creds_.set_umask(mask); }

  const pb::GreetingReply& greeting() const { return greeting_; }
  const std::string& root() const { return greeting_.root(); }

  // The common calls.
  Result Lookup(const std::string& dir, const std::string& name);
  Result GetAttr(const std::string& handle, uint64_t state = 0);
  Result Create(const std::string& dir, const std::string& name, uint64_t state = 0,
                uint32_t mode = 0644, pb::CreateMode how = pb::CREATE_GUARDED,
                uint32_t flags = pb::OPEN_READ | pb::OPEN_WRITE);
  Result MkDir(const std::string& dir, const std::string& name, uint32_t mode = 0755);
  Result SymLink(const std::string& dir, const std::string& name, const std::string& target);
  Result Remove(const std::string& dir, const std::string& name);
  Result RmDir(const std::string& dir, const std::string& name);
  Result Rename(const std::string& dir, const std::string& name, const std::string& new_dir,
                const std::string& new_name, uint32_t flags = 0);
  Result Open(const std::string& handle, uint64_t state, uint32_t flags, bool reclaim = false);
  Result Close(const std::string& handle, uint64_t state);
  Result Write(const std::string& handle, uint64_t state, uint64_t offset,
               const std::string& data);
  Result Read(const std::string& handle, uint64_t state, uint64_t offset, uint32_t length);
  // All names in a directory, in listing order.
  std::vector<pb::DirEntry> List(const std::string& handle, bool plus, size_t room = 65536,
                                 uint64_t state = 0);
  pb::Call LockCall(const std::string& handle, pb::LockKind kind, pb::LockType type,
                    pb::LockAction action, uint64_t owner, uint64_t start = 0,
                    uint64_t length = 0) const;

  std::vector<pb::Notice> notices();
  std::function<void(const pb::Notice&)> on_notice;                // in the notice thread
  std::function<void(Peer&, const pb::GreetingReply&)> on_recovered;  // in the recovery thread
  void Disconnect() { client_.reset(); }
  rpc::Client& client() { return *client_; }

 private:
  pb::Credentials creds_;
  pb::GreetingReply greeting_;
  std::mutex mutex_;
  std::vector<pb::Notice> notices_;
  std::unique_ptr<rpc::Client> client_;
};

// A server on a temporary directory, over the loopback.
class FsTest : public ::testing::Test {
 protected:
  FsTest();
  ~FsTest() override;
  // Options to change before the first Start.
  ServerConfig config;
  void Start();
  void Stop();  // in order
  void Kill();  // as kill -9
  void Restart() {
    Stop();
    Start();
  }
  std::unique_ptr<Peer> Connect(const std::string& name = "data");

  TempDir dir;    // what is exported, as "data"
  TempDir state;
  rpc::Loopback net;
  std::unique_ptr<FileServer> files;
  std::unique_ptr<rpc::Server> server;
};

// Runs `f` again and again until it is true; false after ten seconds.
bool Eventually(const std::function<bool()>& f);

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& data);
bool IsRoot();

}  // namespace tripwire::fs

#endif  // TRIPWIRE_TESTS_UNIT_FS_SERVER_FIXTURE_H_

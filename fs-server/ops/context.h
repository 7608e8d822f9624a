// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_OPS_CONTEXT_H_
#define TRIPWIRE_FS_SERVER_OPS_CONTEXT_H_

#include <sys/stat.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs-server/file_server.h"
#include "fs-server/handle.h"
#include "fs-server/identity.h"
#include "fs-server/inode_store.h"
#include "fs-server/journal.h"
#include "fs-server/proto/fs.pb.h"
#include "fs-server/session.h"
#include "nic/comm/rpc.h"

namespace tripwire::fs {

// Something other sessions may have cached that an operation made untrue.
struct Change {
  FileId id;
  uint32_t what = 0;  // pb::RecallWhat
  std::string name;   // with RECALL_NAMES
  bool deleted = false;
};

// An inode as an operation found it.
struct Inode {
  FileId id;
  SharedFd path;                    // O_PATH; null when only `open` is known
  std::shared_ptr<OpenFile> open;   // when the call named a state
  int fd() const { return open ? open->fd.get() : path->get(); }
};

// What reopens a descriptor, whatever it is on, as the current identity.
struct ProcPath {
  char text[40];
  explicit ProcPath(int fd) { std::snprintf(text, sizeof(text), "/proc/self/fd/%d", fd); }
  operator const char*() const { return text; }
};

// One call while it is served. Lives on the worker's stack; an operation that
// answers later moves what it needs out of it. Methods return 0 or an errno.
class OpContext {
 public:
  OpContext(FileServer* server, const std::shared_ptr<ClientSession>& session,
            std::shared_ptr<rpc::Call> call, const pb::Call& request, pb::Reply* reply)
      : server(*server),
        session(*session),
        session_ref(session),
        exported(*session->exported),
        store(*session->exported->store),
        call(std::move(call)),
        request(request),
        reply(*reply) {}

  FileServer& server;
  ClientSession& session;
  const std::shared_ptr<ClientSession>& session_ref;
  Export& exported;
  InodeStore& store;
  std::shared_ptr<rpc::Call> call;
  const pb::Call& request;
  pb::Reply& reply;
  Caller caller;
  rpc::BulkBuffer bulk;
  size_t bulk_bytes = 0;
  std::vector<Change> changes;
  bool intended = false;         // the journal waits for the reply
  std::optional<Intent> prior;   // an earlier server began this very call
  // With kWritesFirst: whose write lease on what.
  FileId written;
  LeaseTable::Writer writer{};

  // Finds an inode by handle. ESTALE for what is no handle of this export; kWritesFirst
  // while another session has a write lease on it.
  int Find(const std::string& handle, Inode* inode);
  int FindAnyway(const std::string& handle, Inode* inode);
  // As Find, preferring an open file. An unknown state falls back to the handle
  // unless `need_state`: then EBADF and reply.state_lost.
  int Find(const pb::Object& object, Inode* inode, bool need_state = false);

  // 0, or kWritesFirst. For what an operation is to see that it found by name.
  int WritesFirst(const FileId& id);

  // Promises the session to tell it of changes (kInode, kNames of LeaseTable).
  // Call it before reading what the promise is about. No promise is made beside
  // another's write lease, that is to one who found the inode before the other got it.
  void Grant(const FileId& id, uint8_t what);
  bool GrantUnder(const FileId& id, uint8_t what, uint64_t now_ns);
  // The same for writes, if nobody else has the inode in use.
  bool GrantWrites(const FileId& id);

  // Whether an object surely has no extended attribute: one that is open, or that has
  // a name in an open directory.
  static bool HasNoXattrs(int fd);
  static bool HasNoXattrs(int dir_fd, const char* name);

  // Fills reply.attr (handle too, when asked), with a lease.
  int ReplyAttr(const Inode& inode, bool with_handle = false, int sync_flags = 0);
  // With the link count that clients are to see.
  void FillAttr(const FileId& id, const struct statx& stx, pb::Attr* attr) const;
  // Of a directory and its names, with a lease. While its stripe is locked, so that the
  // next change through this server finds the change that this one left. `is_second`: a
  // rename's target directory, when it is another one.
  void ReplyDirAttr(const Inode& dir, bool is_second = false);

  void Changed(const FileId& id, uint32_t what) { changes.push_back({id, what, {}, false}); }
  void NameChanged(const FileId& dir, const std::string& name, bool deleted) {
    changes.push_back({dir, pb::RECALL_ATTR | pb::RECALL_NAMES, name, deleted});
  }

  // Records what the call is about to do, for a server that may come after us.
  // REQUIRES: the call may be journaled; at most once.
  void Intend(Intent intent);

  // `change` of an inode now, 0 when unknown.
  uint64_t ChangeNow(int fd) const;

  // Opens an inode's data as the caller; for regular files and directories only.
  int OpenData(const Inode& inode, uint32_t flags, UniqueFd* fd);
  // The same for a file that its caller had open when the server ended: its owner may use
  // what he opened whatever the mode has become.
  int OpenDataAgain(const Inode& inode, uint32_t flags, UniqueFd* fd);
  // A descriptor for data: the open file's, or one opened for this call.
  int DataFd(const Inode& inode, uint32_t flags, UniqueFd* holder, int* fd);
  int AddOpen(uint64_t state, const FileId& id, UniqueFd fd, uint32_t flags, bool directory);
};

// 0 when `name` is one path component: ENAMETOOLONG, or EINVAL when it is empty, "." or
// "..", or has a '/' or NUL in it.
int CheckName(const std::string& name);

// open(2) flags for pb::OpenFlags, always with O_CLOEXEC and O_NOCTTY; -1 for
// flags that make no sense.
int ToOpenFlags(uint32_t flags);

// The label of the server's own SELinux policy, which means nothing on another host;
// clients neither see nor set it, as over NFS without labels.
inline constexpr char kHiddenXattr[] = "security.selinux";

// What an operation returns when it has taken the call over and answers later.
inline constexpr int kParked = -1;
// What an operation returns that has done nothing yet, for another session has a write
// lease on what it is about: that is recalled, then the operation runs again.
inline constexpr int kWritesFirst = -2;

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_OPS_CONTEXT_H_

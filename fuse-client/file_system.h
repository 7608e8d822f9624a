// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_FILE_SYSTEM_H_
#define TRIPWIRE_FUSE_CLIENT_FILE_SYSTEM_H_

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "fuse-client/caller_groups.h"
#include "fuse-client/fuse_api.h"
#include "fuse-client/interrupts.h"
#include "fuse-client/invalidator.h"
#include "fuse-client/kernel_cache.h"
#include "fuse-client/lease_keeper.h"
#include "fuse-client/lock_waiters.h"
#include "fuse-client/node_table.h"
#include "fuse-client/recall_log.h"
#include "fuse-client/remote.h"
#include "fuse-client/unstable_data.h"

namespace tripwire::fuse {

// How a mount behaves; from the command line.
struct FsOptions {
  std::string export_name;
  std::string client_name;
  bool read_only = false;
  bool default_permissions = true;
  bool sync = false;        // every write is durable before it returns
  bool direct_io = false;   // no page cache
  bool local_posix = false; // byte-range locks by the kernel, for this host only
  bool local_flock = false;
  bool posix_acl = false;   // the kernel checks access ACLs
  Patience patience;
  // How long attributes and names may be trusted, in seconds, instead of what the
  // server grants (files, directories).
  std::optional<double> file_timeout_s;
  std::optional<double> dir_timeout_s;
  uint32_t max_read = 1u << 20;
  uint32_t max_write = 1u << 20;
  // Of data the server may still lose: how much is kept at most, to send it again.
  size_t unstable_bytes = DefaultUnstableBytes();

  static size_t DefaultUnstableBytes();  // a sixteenth of this host's memory
};

// An open file. Belongs to the kernel from open to release.
struct OpenFile {
  uint64_t state = 0;       // our name for it at the server
  NodeRef node;
  uint32_t flags = 0;       // pb::OpenFlags
  uint32_t uid = 0, gid = 0;
  bool append = false;
  std::atomic<bool> is_written{false};  // it had a write
  // Who got byte-range locks through it. When it is released, every process that
  // had it has closed it and lost its locks by that; what remains are the locks of
  // the open file description itself (F_OFD_SETLK). Guarded by the node's lock.
  std::vector<uint64_t> lock_owners;
  OpenFile* next = nullptr; // in Node::opens, under its lock
  OpenFile* prev = nullptr;
};

// Raw facts of the request a worker is handling that the FUSE library drops.
struct RawRequest {
  uint32_t opcode = 0;
  bool kill_suidgid = false;  // the caller's write or open drops setuid and setgid
  RequestBuffer* buffer = nullptr;  // the request; a write may keep it
};
extern thread_local RawRequest current_request;

class Mutating;
class Op;

// The names that a listing has told so far, while it goes on from its start without a gap.
struct ListedNames {
  std::unique_ptr<DirectoryNames> names;  // none: it does not
  uint64_t change = 0;          // the directory's change attribute before it
  uint64_t mutations = 0;       // Node::mutations_begun before it
  uint64_t recalls_before = 0;  // RecallLog::Now() before it
};
class ListingBuffer;
struct OpenDirectory;

// The file system: FUSE requests in, calls to the server out.
//
// Every public operation answers its request exactly once. Thread-safe.
//
// Lock order: RecallLog::gate, a node table shard, Node::mu. None is held across a
// call to the server; only `gate` (shared) is held across an answer to the kernel.
class FileSystem {
 public:
  explicit FileSystem(FsOptions options);
  ~FileSystem();
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;

  // Fills in the greeting and the callbacks; they may be called until the client
  // is destroyed, which must happen before this object is.
  void Configure(rpc::ClientOptions* options);
  // The session is open: learns the root. The client must outlive this object's use.
  absl::Status Start(rpc::Client* client);
  // From here on the kernel can be told to forget things.
  void AttachKernel(KernelCache* kernel);
  // No more requests come: makes unstable data durable, ends helper threads.
  void Stop();

  const FsOptions& options() const { return options_; }
  BufferPool& buffers() { return buffers_; }
  NodeTable& nodes() { return nodes_; }
  const pb::GreetingReply& greeting() const { return greeting_; }
  uint32_t max_read() const { return max_read_; }

  void Init(fuse_conn_info* conn);
  // Attributes and names.
  void Lookup(fuse_req_t req, fuse_ino_t parent, const char* name);
  void Forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups);
  void ForgetMulti(fuse_req_t req, size_t count, fuse_forget_data* forgets);
  void GetAttr(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi);
  void SetAttr(fuse_req_t req, fuse_ino_t ino, struct stat* attr, int to_set,
               fuse_file_info* fi);
  void ReadLink(fuse_req_t req, fuse_ino_t ino);
  void Access(fuse_req_t req, fuse_ino_t ino, int mask);
  void StatFs(fuse_req_t req, fuse_ino_t ino);
  void MkNod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode,
             dev_t rdev);
  void MkDir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode);
  void Unlink(fuse_req_t req, fuse_ino_t parent, const char* name);
  void RmDir(fuse_req_t req, fuse_ino_t parent, const char* name);
  void SymLink(fuse_req_t req, const char* target, fuse_ino_t parent,
               const char* name);
  void Rename(fuse_req_t req, fuse_ino_t parent, const char* name,
              fuse_ino_t new_parent, const char* new_name, unsigned flags);
  void Link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent,
            const char* new_name);
  // Files.
  void Open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi);
  void Create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode,
              fuse_file_info* fi);
  // Not in the library: answers by itself with entry and open file; `error` or both.
  struct TmpFileResult {
    int error = 0;
    fuse_entry_param entry = {};
    uint64_t fh = 0;
  };
  TmpFileResult TmpFile(const fuse_ctx& caller, fuse_ino_t parent, mode_t mode,
                        int flags);
  void DropTmpFile(const TmpFileResult& result);  // nobody took it
  // Not in the library either: statx(2) with what struct stat has no room for.
  int StatX(const fuse_ctx& caller, fuse_ino_t ino, pb::Attr* attr,
            struct stat* basic, double* timeout_s);
  void Read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
            fuse_file_info* fi);
  void Write(fuse_req_t req, fuse_ino_t ino, const char* data, size_t size,
             off_t offset, fuse_file_info* fi);
  void Flush(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi);
  void Release(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi);
  void FSync(fuse_req_t req, fuse_ino_t ino, int data_only, fuse_file_info* fi);
  void FAllocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset,
                 off_t length, fuse_file_info* fi);
  void LSeek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
             fuse_file_info* fi);
  void CopyFileRange(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
                     fuse_file_info* fi_in, fuse_ino_t ino_out, off_t offset_out,
                     fuse_file_info* fi_out, size_t length);
  // Directories.
  void OpenDir(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi);
  void ReadDir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
               fuse_file_info* fi, bool plus);
  void ReleaseDir(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi);
  void FSyncDir(fuse_req_t req, fuse_ino_t ino, int data_only, fuse_file_info* fi);
  // Extended attributes.
  void SetXattr(fuse_req_t req, fuse_ino_t ino, const char* name,
                const char* value, size_t size, int flags);
  void GetXattr(fuse_req_t req, fuse_ino_t ino, const char* name, size_t size);
  void ListXattr(fuse_req_t req, fuse_ino_t ino, size_t size);
  void RemoveXattr(fuse_req_t req, fuse_ino_t ino, const char* name);
  // Locks.
  void GetLk(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi, struct flock* lock);
  void SetLk(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi, struct flock* lock,
             bool wait);
  void FLock(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi, int operation);

 private:
  friend class Op;

  void LookupDots(fuse_req_t req, Node* dir, bool parent);
  void ReplyAbsent(Op& op, Node* dir);
  void ObserveRemoved(Op& op);
  void ChangedBeside(const Node* dir, std::string_view name);

  // --- replies (replies.cc)
  struct Timeouts {
    double attr = 0;
    double entry = 0;
  };
  Timeouts TimeoutsFor(const Op& op, bool directory, uint32_t attr_ms,
                       uint32_t name_ms) const;
  // Until when, counted from the call, we trust what the server promised for `ms`.
  static uint64_t TrustedNs(uint32_t ms);
  static double TrustLeft(uint64_t asked_ns, uint32_t ms);
  void FillStat(const pb::Attr& attr, struct stat* out) const;
  void ReplyEntry(Op& op, Node* parent, std::string_view name);
  bool MakeEntry(Op& op, Node* parent, std::string_view name,
                 fuse_entry_param* entry, Node** node);
  void ReplyAttr(Op& op, Node* node);
  // What an attribute reply says about the pages the kernel holds. `ours`: the call
  // itself may have changed the object. May make the kernel forget pages.
  // kData: it moved data to or from the kernel's pages.
  enum class Cause { kLook, kOwnChange, kData };
  void Observe(const Op& op, Node* node, const pb::Attr& attr, uint32_t cache_ms,
               Cause cause, uint64_t pre_change = 0);
  // When the call was made of whose reply is spoken.
  struct Asked {
    uint64_t start_ns;
    uint64_t recalls_before;
    uint64_t xattrs_set = 0;  // what xattrs_set_ was; for NoteLacks only
  };
  void Observe(Asked asked, Node* node, const pb::Attr& attr, uint32_t cache_ms,
               Cause cause, uint64_t pre_change = 0);

  // --- known_attr.cc
  // `attr` of the node is in the reply to `op`, which was `mutation` of it.
  void KeepAttr(const Op& op, const Mutating& mutation, Node* node,
                const pb::Attr& attr);
  bool AnswerKnownAttr(fuse_req_t req, Node* node);
  // A call found, or made, the object without security.capability, or without any.
  void NoteLacks(const Asked& asked, Node* node, bool all, uint32_t cache_ms)
      ABSL_SHARED_LOCKS_REQUIRED(recalls_.gate);
  // A call got a new promise, and told of nothing new.
  void StillLacks(const Asked& asked, Node* node, uint32_t cache_ms)
      ABSL_SHARED_LOCKS_REQUIRED(recalls_.gate);
  bool KnowsItLacks(Node* node, std::string_view xattr);
  // Whether programs ask for extended attributes of what they list or look up.
  bool XattrsAreWanted() const;

  // --- known_names.cc
  bool AnswerKnownAbsent(fuse_req_t req, Node* dir, std::string_view name);
  static bool KnowsNames(Node* dir);
  static void ForgetNames(Node* dir) ABSL_EXCLUSIVE_LOCKS_REQUIRED(dir->mu);
  // A lookup was answered that asked for the directory's change attribute; `allowed`: its
  // caller may search there.
  void NoteLookedIn(const Op& op, Node* dir, bool allowed);
  void RenewNames(const Op& op, DirectoryNames* names, const Node* dir)
      ABSL_SHARED_LOCKS_REQUIRED(recalls_.gate)
          ABSL_EXCLUSIVE_LOCKS_REQUIRED(dir->mu);
  // As KeepAttr, of a directory in which `op` has made or removed names; `is_second`: the
  // other one of a rename.
  void KeepDirectory(const Op& op, const Mutating& mutation, Node* dir,
                     bool is_second = false);
  // Around each call of a listing; the first before those from its start only.
  void BeginNames(Node* dir, ListedNames* listed);
  void CollectNames(const Op& op, Node* dir, const std::vector<pb::DirEntry>& entries,
                    ListedNames* listed);
  void AdoptNames(const Op& op, Node* dir, ListedNames* listed);
  void AdoptNoNames(const Op& op, Node* dir);  // it has just been made
  // A name was looked for in vain: the directory, if it is to be listed, and how much of
  // it at the most.
  NodeRef MissedOften(Node* dir, size_t* listing_bytes);
  void ListNames(const fuse_ctx& caller, const NodeRef& dir, size_t listing_bytes);

  // --- pages (observe.cc). All of these may wait for reads and writes of ours that
  // are under way, so none may be called by who answers those.
  void RenewLease(Node& node, rpc::CancelToken* cancel = nullptr);
  // A lock was granted and its holder does not know it yet. May make a call.
  void Revalidate(Node& node);
  void DropLapsedPages(Node& node);
  void DropPages(Node& node);
  void ForgetPages(uint64_t node_id);
  void ForgetPagesLater(Node* node);  // this one does not wait

  // --- files (ops_file.cc)
  uint64_t NextState() { return next_state_.fetch_add(1); }
  // The kernel is about to have the file open. `keep_cache`: its pages are right.
  OpenFile* MakeOpenFile(const Op& op, Node* node, uint64_t state, int linux_flags,
                         bool* keep_cache);
  void FillOpenReply(const OpenFile* file, bool keep_cache, fuse_file_info* fi) const;
  void CloseFile(OpenFile* file, const fuse_file_info* fi);
  void CloseState(const std::string& handle, uint64_t state);
  int SendData(Op& op, bool is_behind, const char* data, size_t size, size_t* written);
  // `data` was written at `offset`.
  void NoteWritten(const Op& op, const Mutating& mutating, OpenFile* file,
                   std::string_view data, uint64_t offset);
  int CommitNode(fuse_req_t req, Node* node, OpenFile* file, bool data_only);
  void NoteUnsendable(const Op& op, Node* node);
  void KeepUnstable(const Op& op, OpenFile* file, const char* data, size_t size,
                    uint64_t offset);
  int DropPosixLocks(fuse_req_t req, OpenFile* file, uint64_t owner);

  // --- write_behind.cc
  // Wait for those that have begun. The first two give up, with EINTR, when the program
  // is ended.
  int AwaitWritesBehind(Op& op, Node* node);
  int AwaitWritesBehind(fuse_req_t req, Node* node);
  static void AwaitWritesBehind(Node* node);
  void NoteWriteLease(const Op& op, Node* node);
  // The reply has attributes of a node that the call did not name: it is made to tell of
  // writes behind that had begun before. No if that cannot be.
  bool AskAgainIfWrittenBehind(Op& op, Node* node);
  void FailedBehind(Node* node, int error);
  static void EndWriteLease(Node* node, uint64_t give_up_ns);

  // --- directories (ops_dir.cc)
  static bool ReadEntries(const Op& op, std::vector<pb::DirEntry>* entries);
  int FetchListing(fuse_req_t req, Node* node, OpenDirectory* dir, uint64_t cookie,
                   bool plus);
  Node* PlusEntry(const OpenDirectory& dir, Node* node, const pb::DirEntry& listed,
                  fuse_entry_param* entry)
      ABSL_SHARED_LOCKS_REQUIRED(recalls_.gate);
  bool FillListing(OpenDirectory* dir, Node* node, off_t offset, bool plus,
                   ListingBuffer* buffer, std::vector<uint64_t>* entered)
      ABSL_SHARED_LOCKS_REQUIRED(recalls_.gate);

  // --- locks (ops_lock.cc)
  int CallLock(fuse_req_t req, OpenFile* file, const pb::Lock& lock,
               uint64_t* epoch = nullptr);
  void AnswerLock(fuse_req_t req, OpenFile* file, const pb::Lock& lock, bool wait);
  void WaitForLock(fuse_req_t req, OpenFile* file, const pb::Lock& lock);
  void OnLockGrant(const pb::LockGrant& grant);
  void EndWait(uint64_t id, uint64_t epoch, int error);
  void AnswerWait(LockWait& wait, int error);
  void AnswerWaitLater(LockWaiters::Ref wait, int error);
  static void OnLockInterrupt(fuse_req_t req, void* wait);
  void CancelWait(const LockWaiters::Ref& wait);
  void GiveUpWait(const LockWaiters::Ref& wait, int error);
  void UndoLock(const LockWait& wait);
  void AskForLocksAgain(uint64_t epoch);
  void RecordLock(OpenFile* file, const pb::Lock& lock);

  // --- recall.cc
  void OnNotify(rpc::Bytes message);
  void Recalled(const pb::Recall& recall);
  void ForgetNamesIn(Node& dir, KernelCache& kernel);
  void RecalledEverything();
  void OnConnection(bool connected, const std::string& why);

  // --- recovery.cc
  void OnRecovered(rpc::Bytes greeting_reply);
  void NoteServer(const pb::GreetingReply& greeting);
  // What opening a file again takes.
  struct OpenHandle {
    uint64_t state;
    uint32_t flags, uid, gid;
  };
  static std::vector<OpenHandle> OpensOf(Node& node);
  int ReclaimState(Node& node, const OpenHandle& open, bool during_recovery);
  int Reclaim(const OpenFile& file, bool during_recovery);
  void ReclaimLocks(Node& node);
  int RefreshHandle(Node* node, bool during_recovery, int depth = 0);
  int ResendSegment(Node& node, const UnstableData::Segment& segment,
                    bool during_recovery);
  void CommitterLoop();
  void CommitEverything(uint64_t timeout_ns, rpc::CancelToken* cancel);

  const FsOptions options_;
  Remote remote_;
  std::atomic<size_t> names_known_{0};  // in all directories; nodes_ count down
  NodeTable nodes_;
  BufferPool buffers_;
  UnstableData unstable_;
  RecallLog recalls_;
  CallerGroups groups_;
  Interrupts interrupts_;
  Invalidator invalidator_;
  LockWaiters lock_waiters_;
  LeaseKeeper lease_keeper_;
  pb::GreetingReply greeting_;
  std::atomic<uint64_t> boot_verifier_{0};
  std::atomic<uint64_t> root_fsid_{0};
  // What the server was given is in the kernel that is ours as well.
  std::atomic<bool> same_kernel_{false};
  std::atomic<bool> acts_as_caller_{true};
  std::atomic<uint64_t> next_state_{1};
  std::atomic<uint64_t> xattrs_set_{0};      // grows as ours begin and end to set any
  std::atomic<uint64_t> xattr_asked_ns_{0};  // when the kernel last asked for one
  std::atomic<uint64_t> disconnected_at_ns_{0};
  std::atomic<bool> stopping_{false};
  uint32_t lease_ms_ = 1000;
  uint32_t max_read_ = 0;
  std::atomic<KernelCache*> kernel_{nullptr};
  // Each of one thread, for it serves one call at a time.
  rpc::CancelToken committer_cancel_, renewal_cancel_;
  std::thread committer_;
};

// The table for fuse_session_new; its userdata is the FileSystem.
const fuse_lowlevel_ops& FuseOperations();

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_FILE_SYSTEM_H_

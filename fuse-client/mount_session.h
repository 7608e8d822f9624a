// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_MOUNT_SESSION_H_
#define TRIPWIRE_FUSE_CLIENT_MOUNT_SESSION_H_

#include <pthread.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "fuse-client/file_system.h"
#include "fuse-client/kernel_cache.h"
#include "fuse-client/mutex.h"

namespace tripwire::fuse {

struct SessionOptions {
  std::string mountpoint;  // absolute
  std::string source;      // shown in /proc/mounts: NODE:NAME
  // For mount(2) and fusermount3: "ro", "nosuid", "allow_other", ...
  std::vector<std::string> mount_options;
  uint32_t max_read = 1u << 20;
  int max_threads = 1024;
  int idle_threads = 16;  // at most so many wait for requests; most end sooner
};

// One mounted file system: the connection to the kernel and the threads that serve
// it. Each thread reads a request and answers it before it reads the next; a new
// thread is started whenever none would be left to read, so interrupts and forgets
// always get through, however many requests wait for the server. Threads that were
// not needed for a second end, so that there are as many as the work needs: starting
// them costs time, and the kernel takes them in turn, each with a buffer that is in
// no cache any more.
//
// Thread-safe, except that Wait and the destructor are for one thread.
class MountSession final : public KernelCache {
 public:
  // Mounts; the error is fit for the user. `fs` must outlive the session.
  static absl::StatusOr<std::unique_ptr<MountSession>> Mount(SessionOptions options,
                                                             FileSystem* fs);
  ~MountSession() override;

  // Returns true once all threads have ended: the kernel closed the connection (the
  // file system was unmounted), or Abandon was called. False after `timeout`.
  bool Wait(absl::Duration timeout = absl::InfiniteDuration());
  // Stops reading requests; threads that wait for the server go on waiting.
  void Abandon();
  // Asks for a clean unmount, as umount(8) does; true when it is gone. False (and
  // nothing is changed) when it is in use.
  bool TryUnmount();
  // Takes the mount point away although it is in use. Those who still use it get
  // errors once this process ends.
  void Detach();

  // Major and minor number of the mount in /proc/self/mountinfo ("0:53").
  const std::string& device() const { return device_; }

  bool ForgetAttributes(uint64_t node_id) override;
  bool ForgetPages(uint64_t node_id) override;
  void ForgetName(uint64_t parent_id, const std::string& name) override;
  bool ForgetAllNames() override;

 private:
  MountSession(SessionOptions options, FileSystem* fs)
      : options_(std::move(options)), fs_(fs) {}
  absl::Status Open();
  absl::Status Handshake();
  void Work();
  void StartThread();
  void TookRequest();
  bool IsSpare();
  bool HandleOurselves(const char* request, size_t size);
  void AnswerTmpFile(const char* request, size_t size);
  void AnswerStatX(const char* request, size_t size);
  int Answer(uint64_t unique, int error, const iovec* parts, int count);

  const SessionOptions options_;
  FileSystem* const fs_;
  fuse_session* session_ = nullptr;
  int fd_ = -1;
  bool mounted_ = false;
  std::string device_;
  std::atomic<bool> can_forget_all_names_{true};
  std::atomic<bool> over_{false};
  // Somebody unmounted it. Another mount may be in its place by now, even one with
  // the same device number.
  std::atomic<bool> gone_{false};
  std::atomic<int> reading_{0};  // threads in or about to enter read(2)
  std::atomic<int> least_reading_{0};  // in this second
  std::atomic<int> spare_{0};          // that may end: nobody needed them in the last
  std::atomic<int64_t> second_ends_ms_{0};

  Mutex mu_;
  std::set<pthread_t> threads_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_MOUNT_SESSION_H_

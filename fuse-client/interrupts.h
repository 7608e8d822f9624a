// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_INTERRUPTS_H_
#define TRIPWIRE_FUSE_CLIENT_INTERRUPTS_H_

#include <sys/types.h>

#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "fuse-client/mutex.h"
#include "nic/comm/rpc.h"

#include <thread>

namespace tripwire::fuse {

// Decides whether a signal to a process that waits for the server ends its wait.
//
// File operations are not interrupted by just any signal (a timer's, a child's):
// programs do not expect EINTR from unlink(2). As with a hard NFS mount, signals
// that would end the process do, and so do those by which users ask a program to
// stop. The kernel tells of the first signal only, so the caller is looked at again
// until its call is done. Thread-safe.
class Interrupts {
 public:
  Interrupts() = default;
  ~Interrupts();

  // The process behind `tid` got a signal while `token`'s call is under way. Does
  // not block.
  void Watch(const void* call, pid_t tid, rpc::CancelToken* token);
  // The call is done; its token is not touched after this returns.
  void Unwatch(const void* call);

  // Whether the /proc/PID/status text shows a pending signal that ends a wait.
  static bool EndsWait(std::string_view status);

 private:
  struct Watched {
    pid_t tid;
    rpc::CancelToken* token;
  };
  void Run();

  Mutex mu_;
  std::unordered_map<const void*, Watched> watched_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool running_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_INTERRUPTS_H_

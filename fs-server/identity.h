// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_IDENTITY_H_
#define TRIPWIRE_FS_SERVER_IDENTITY_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace tripwire::fs {

// Who a call is made for, after squashing.
struct Caller {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::vector<uint32_t> groups;
  uint32_t umask = 0;
};

// The file-system identity of the calling *thread*: fsuid, fsgid, supplementary
// groups, capabilities and umask, by raw system calls (the C library's would
// change the whole process). What the thread already is costs nothing to become.
// Without the privilege to change identity, only the umask changes.
namespace identity {

// True when this process may act as others (it has CAP_SETUID and CAP_SETGID).
bool CanSwitch();

// Becomes the caller, capabilities included: all of them for user 0, none but those
// to switch again for others. 0, or an errno when the kernel refuses; then nothing
// may be done for the caller.
int Assume(const Caller& caller);

// Becomes the server itself.
int AssumeSelf();

// Sets the thread's umask (which other threads do not share).
void SetUmask(uint32_t mask);

// While it lives the thread may open any file (CAP_DAC_READ_SEARCH), whoever it is.
// For finding inodes by id; what is done with them is checked as the caller.
class ReadAnything {
 public:
  ReadAnything();
  ~ReadAnything();
  ReadAnything(const ReadAnything&) = delete;
  ReadAnything& operator=(const ReadAnything&) = delete;

 private:
  bool raised_ = false;
};

}  // namespace identity
}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_IDENTITY_H_

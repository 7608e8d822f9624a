// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_KERNEL_CACHE_H_
#define TRIPWIRE_FUSE_CLIENT_KERNEL_CACHE_H_

#include <cstdint>
#include <string>

namespace tripwire::fuse {

// What the kernel remembers of the mount, and how to make it forget. Thread-safe.
class KernelCache {
 public:
  virtual ~KernelCache() = default;

  // Attributes only. Takes no lock that a pending request could hold. False when
  // the kernel does not know the inode (yet).
  virtual bool ForgetAttributes(uint64_t node_id) = 0;
  // Attributes and cached pages or directory listing; dirty pages of shared
  // mappings are written back first. Waits for pages that a read or write under
  // way has locked.
  virtual bool ForgetPages(uint64_t node_id) = 0;
  // One name in a directory. Waits for the directory's lock, which operations that
  // change the directory hold while their request is pending.
  virtual void ForgetName(uint64_t parent_id, const std::string& name) = 0;
  // All names everywhere, without waiting for any lock (Linux 6.16); false when
  // the kernel cannot.
  virtual bool ForgetAllNames() = 0;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_KERNEL_CACHE_H_

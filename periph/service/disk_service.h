// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_DISK_SERVICE_H_
#define TRIPWIRE_PERIPH_SERVICE_DISK_SERVICE_H_

#include <cstdint>
#include <memory>

#include "nic/base/clock.h"
#include "periph/service/registry.h"
#include "periph/service/served_call.h"

namespace tripwire::periph {

// The calls disk_open, disk_close and disk_io. Thread-safe: called on the RPC
// server's workers, many at once, and may block.
//
//  1. A disk belongs to the session that opened it, under the number its user chose, and
//     is closed with it.
//  2. One writer or many readers at a time, unless all of them opened it without
//     `exclusive`. Who closes it holds it until his last operation has ended: nothing of
//     his happens after the next user's first operation.
//  3. A user who cannot be reached keeps his disk while nobody else wants it, and for
//     `keep_unreachable_ns` after somebody asked for it.
//  4. What waits for a medium waits in a thread of this service's, not in a worker.
class DiskService {
 public:
  virtual ~DiskService() = default;  // when all calls were answered
  virtual void Serve(ServedCall call) = 0;
  // The session is gone for good: its disks are closed.
  virtual void EndSession(uint64_t session_id) = 0;
};

struct DiskServiceOptions {
  // Another: data that was written here and not flushed may be lost. Names the kernel
  // whose memory it is in.
  uint64_t verifier = 0;
  uint64_t keep_unreachable_ns = 5 * kSecond;
  uint32_t max_disks = 64;  // of one session
  // How many operations may wait for media at once.
  uint32_t threads = 16;
};

std::unique_ptr<DiskService> MakeDiskService(Registry& registry, Clock& clock,
                                             const DiskServiceOptions& options);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_DISK_SERVICE_H_

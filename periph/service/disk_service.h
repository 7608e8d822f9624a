// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_DISK_SERVICE_H_
#define TRIPWIRE_PERIPH_SERVICE_DISK_SERVICE_H_

#include <cstdint>

#include "periph/service/registry.h"
#include "periph/service/served_call.h"

namespace tripwire::periph {

// The calls disk_open, disk_close and disk_io. Thread-safe: called on the RPC
// server's workers, many at once, and may block.
class DiskService {
 public:
  virtual ~DiskService() = default;
  virtual void Serve(ServedCall call) = 0;
  // The session is gone for good: its disks are closed.
  virtual void EndSession(uint64_t session_id) = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_DISK_SERVICE_H_

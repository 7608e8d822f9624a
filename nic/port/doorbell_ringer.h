// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_DOORBELL_RINGER_H_
#define TRIPWIRE_NIC_PORT_DOORBELL_RINGER_H_

#include <linux/aio_abi.h>

#include "nic/base/fd.h"

namespace tripwire {

// Rings eventfds that somebody else owns as well. Writing to one can block: its
// other owner can fill its counter and clear O_NONBLOCK, which is a property of
// the file they share. The kernel itself, telling that an asynchronous
// operation is complete, never blocks on an eventfd; so that is how they are
// rung: by polling a descriptor of our own that is always ready. It takes a
// microsecond longer, and is no use against those who may stop this process as
// they please: their bells are written to.
//
// Thread safety: none.
class DoorbellRinger {
 public:
  DoorbellRinger();
  ~DoorbellRinger();
  DoorbellRinger(const DoorbellRinger&) = delete;
  DoorbellRinger& operator=(const DoorbellRinger&) = delete;

  // Blocks only if a trusted owner makes it. False when the bell cannot be
  // rung: it is no eventfd; or the kernel offers no asynchronous operations and
  // its owner made it block.
  bool RingBell(int event_fd, bool trusts_owner = false);

 private:
  bool RingByWriting(int event_fd);

  UniqueFd ready_;
  aio_context_t context_ = 0;  // 0: none
  unsigned unreaped_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_DOORBELL_RINGER_H_

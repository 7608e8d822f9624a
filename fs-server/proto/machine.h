// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_PROTO_MACHINE_H_
#define TRIPWIRE_FS_SERVER_PROTO_MACHINE_H_

#include <cstdint>

namespace tripwire::fs {

// Names the kernel this process runs on, until its next boot: processes that
// say the same share its page cache. (A virtual machine that was copied while
// it ran has a twin of the same name.) 0 when the kernel does not tell.
uint64_t ThisMachine();

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_PROTO_MACHINE_H_

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONTROL_UNREADABLE_H_
#define TRIPWIRE_NIC_CONTROL_UNREADABLE_H_

#include <google/protobuf/stubs/logging.h>

namespace tripwire {

// Messages that cannot be read are counted (drop_malformed) or refused;
// protobuf itself is not to tell of each: whoever sends them could fill a log.
// For the main of a program, which alone may say so for all of its process.
inline void KeepQuietAboutUnreadable() {
  google::protobuf::SetLogHandler(nullptr);
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_CONTROL_UNREADABLE_H_

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_CLIENT_DISK_H_
#define TRIPWIRE_PERIPH_CLIENT_DISK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "periph/client/control_channel.h"
#include "periph/device/device.h"

namespace tripwire::periph {

// Peripherals::OpenDisk, on a channel that the disk keeps.
absl::StatusOr<std::shared_ptr<Disk>> OpenRemoteDisk(std::shared_ptr<ControlChannel> channel,
                                                     const std::string& device, bool read_only,
                                                     bool exclusive);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_CLIENT_DISK_H_

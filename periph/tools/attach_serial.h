// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_TOOLS_ATTACH_SERIAL_H_
#define TRIPWIRE_PERIPH_TOOLS_ATTACH_SERIAL_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "nic/base/clock.h"
#include "periph/client/peripherals.h"
#include "periph/device/bytes.h"

namespace tripwire::periph::tools {

struct AttachSerialOptions {
  std::string device;
  std::string link;  // a symbolic link to make; may be empty
  // To set before anything is carried.
  std::vector<std::pair<std::string, std::string>> controls;
  // Others may use the device meanwhile, and bytes may be lost.
  bool shared = false;
};

// Makes a local pseudo-terminal of a remote device of bytes until `stop` is
// signalled or the device's stream ends. Bytes go both ways as they come; how
// programs set the terminal is carried to the device's controls. When the
// device goes, programs see a hang-up; when it is back, there is a new
// terminal, at the same link. A link to the device's server that is lost
// meanwhile is made again, and programs see nothing of it.
//
// `ready` is called with the terminal's name, each time there is one. `clock`
// is the NIC's.
absl::Status AttachSerial(
    Peripherals& peripherals, Clock& clock, const AttachSerialOptions& options,
    const WakeFd& stop,
    const std::function<void(const std::string& path)>& ready);

}  // namespace tripwire::periph::tools

#endif  // TRIPWIRE_PERIPH_TOOLS_ATTACH_SERIAL_H_

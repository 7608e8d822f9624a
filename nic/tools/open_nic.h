// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_TOOLS_OPEN_NIC_H_
#define TRIPWIRE_NIC_TOOLS_OPEN_NIC_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/api/nic.h"

namespace tripwire::tools {

// A NIC of this process over the ports as the user wrote them; without any, over
// the memif of every server in the default directory.
absl::StatusOr<std::unique_ptr<Nic>> OpenNic(
    const std::vector<std::string>& ports, NicOptions options = {});

}  // namespace tripwire::tools

#endif  // TRIPWIRE_NIC_TOOLS_OPEN_NIC_H_

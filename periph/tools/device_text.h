// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_TOOLS_DEVICE_TEXT_H_
#define TRIPWIRE_PERIPH_TOOLS_DEVICE_TEXT_H_

#include <string>

#include "periph/proto/periph.pb.h"

// A device as people and scripts read it.
namespace tripwire::periph::tools {

std::string HeadLine();
std::string LineOf(const std::string& node, const proto::DeviceInfo& info);
std::string JsonOf(const std::string& node, const proto::DeviceInfo& info);
// All there is to know, on several lines.
std::string TextOf(const std::string& node, const proto::DeviceInfo& info);

}  // namespace tripwire::periph::tools

#endif  // TRIPWIRE_PERIPH_TOOLS_DEVICE_TEXT_H_

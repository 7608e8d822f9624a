// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_KINDS_GST_CONTROLS_H_
#define TRIPWIRE_PERIPH_KINDS_GST_CONTROLS_H_

#include <gst/gst.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "periph/device/device.h"

namespace tripwire::periph {

// The properties of those elements of `bin` that the launch line gives a name
// (`videotestsrc name=camera`), as controls "camera.pattern". Naming is how
// whoever offers the device says that users may turn the knobs. What says where
// data comes from or goes to (a file, a host, a descriptor) users can only
// read.
std::vector<Control> ControlsOf(GstElement* bin);
// Errors as Device::SetControl.
absl::Status SetControlOf(GstElement* bin, const std::string& name,
                          const std::string& value);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_KINDS_GST_CONTROLS_H_

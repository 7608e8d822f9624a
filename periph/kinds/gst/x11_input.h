// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_KINDS_GST_X11_INPUT_H_
#define TRIPWIRE_PERIPH_KINDS_GST_X11_INPUT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "periph/device/device.h"

namespace tripwire::periph {

// A sink that presses the keys and buttons of the X display it is told to
// (proto::InputEvent, one a frame), by the XTEST extension. When it is
// destroyed, all that it still holds down is let go. Errors: UNAVAILABLE (no
// such display now), UNIMPLEMENTED (no XTEST there).
absl::StatusOr<std::unique_ptr<Sink>> StartX11Input(const std::string& display);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_KINDS_GST_X11_INPUT_H_

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_MEDIA_WINDOW_H_
#define TRIPWIRE_PERIPH_MEDIA_WINDOW_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "periph/device/device.h"
#include "periph/proto/periph.pb.h"

namespace tripwire::periph {

// Shows video in a window, or plays sound, as soon as a frame comes.
// `on_input`, if given, gets what the user does in the window (on another
// thread), in the picture's pixels. When the user closes the window, Put
// returns CANCELLED.
absl::StatusOr<std::unique_ptr<Sink>> ShowInWindow(
    const std::string& format,
    std::function<void(const proto::InputEvent&)> on_input);

// Shows video in the terminal at standard output, two pixels a character, as
// large as it fits. INVALID_ARGUMENT if it is not video.
absl::StatusOr<std::unique_ptr<Sink>> ShowInTerminal(const std::string& format,
                                                     uint32_t columns,
                                                     uint32_t rows);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_MEDIA_WINDOW_H_

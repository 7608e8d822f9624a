// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_MEDIA_INPUT_EVENT_H_
#define TRIPWIRE_PERIPH_MEDIA_INPUT_EVENT_H_

#include <gst/gst.h>

#include <optional>

#include "periph/proto/periph.pb.h"

namespace tripwire::periph {

// The format of a screen's sink: one proto::InputEvent a frame.
inline constexpr char kInputFormat[] = "application/x-tripwire-input";

// What a window's sink says of its keyboard and pointer, as a screen's sink
// takes it. Nothing for events it has no use for. REQUIRES: a navigation event.
std::optional<proto::InputEvent> InputOfNavigation(GstEvent* event);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_MEDIA_INPUT_EVENT_H_

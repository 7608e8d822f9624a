// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_MEDIA_SINK_LINE_H_
#define TRIPWIRE_PERIPH_MEDIA_SINK_LINE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "periph/device/device.h"
#include "periph/media/gst_ptr.h"

namespace tripwire::periph {

// A sink of the elements in `line`, a launch line of ours with a free sink pad,
// made for frames of `format`, whose times are kept. `prepare`, if given, sees
// the elements before they start. Errors: UNIMPLEMENTED (an element is missing,
// or the format cannot be had).
absl::StatusOr<std::unique_ptr<Sink>> StartSinkLine(
    const std::string& line, const std::string& format,
    const std::function<void(GstElement* bin)>& prepare = {});

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_MEDIA_SINK_LINE_H_

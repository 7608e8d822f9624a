// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_GST_ELEMENT_H_
#define TRIPWIRE_PERIPH_GST_ELEMENT_H_

#include <gst/gst.h>

#include <string>

#include "absl/status/status.h"
#include "periph/client/peripherals.h"
#include "periph/media/gst_ptr.h"
#include "periph/stream/frame.h"

// What the two elements share.
namespace tripwire::periph {

GType TripwireSrcType();   // tripwiresrc
GType TripwireSinkType();  // tripwiresink
GType PolicyType();        // the enum of Policy

// Says on the element's bus what went wrong, as the error that fits.
void PostError(GstElement* element, const absl::Status& why);

// All the formats of a device, or ANY if there are none that say anything.
CapsRef CapsOfDevice(const proto::DeviceInfo& info, bool sink);

// A property that is a string, under the object's lock.
std::string Copy(GstElement* element, const std::string& property);
void Assign(GstElement* element, std::string& property, const GValue* value);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_GST_ELEMENT_H_

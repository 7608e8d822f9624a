// SPDX-License-Identifier: BSD-3-Clause
// The GStreamer plug-in: remote devices as elements of any pipeline.
#include <gst/gst.h>

#include "periph/gst/element.h"

#define PACKAGE "tripwire"

namespace {

gboolean Init(GstPlugin* plugin) {
  return gst_element_register(plugin, "tripwiresrc", GST_RANK_NONE,
                              tripwire::periph::TripwireSrcType()) &&
         gst_element_register(plugin, "tripwiresink", GST_RANK_NONE,
                              tripwire::periph::TripwireSinkType());
}

}  // namespace

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, tripwire,
                  "Remote devices over Tripwire", Init, TRIPWIRE_VERSION, "BSD",
                  "tripwire", "Tripwire")

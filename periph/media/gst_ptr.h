// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_MEDIA_GST_PTR_H_
#define TRIPWIRE_PERIPH_MEDIA_GST_PTR_H_

#include <gst/gst.h>

#include <memory>
#include <string>

// GStreamer's references as unique_ptrs.
namespace tripwire::periph {

struct GstObjectUnref {
  void operator()(gpointer object) const { gst_object_unref(object); }
};
struct GstMiniUnref {
  void operator()(gpointer object) const {
    gst_mini_object_unref(GST_MINI_OBJECT_CAST(object));
  }
};

using ElementRef = std::unique_ptr<GstElement, GstObjectUnref>;
using PadRef = std::unique_ptr<GstPad, GstObjectUnref>;
using BusRef = std::unique_ptr<GstBus, GstObjectUnref>;
using CapsRef = std::unique_ptr<GstCaps, GstMiniUnref>;
using SampleRef = std::unique_ptr<GstSample, GstMiniUnref>;
using BufferRef = std::unique_ptr<GstBuffer, GstMiniUnref>;
using MessageRef = std::unique_ptr<GstMessage, GstMiniUnref>;

// A string that GLib allocated, freed; "" for null.
inline std::string TakeString(gchar* text) {
  std::string taken = text != nullptr ? text : "";
  g_free(text);
  return taken;
}

// Starts GStreamer, once in a process; a no-op where somebody else did.
inline void InitGst() {
  static const bool done = [] {
    gst_init(nullptr, nullptr);
    return true;
  }();
  (void)done;
}

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_MEDIA_GST_PTR_H_

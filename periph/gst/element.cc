// SPDX-License-Identifier: BSD-3-Clause
#include "periph/gst/element.h"

#include "periph/media/formats.h"

namespace tripwire::periph {

GType PolicyType() {
  static const GEnumValue values[] = {
      {static_cast<gint>(Policy::kBlock), "Nothing is lost, the device waits",
       "block"},
      {static_cast<gint>(Policy::kDropOldest),
       "Leave out the oldest frame that waits", "drop-oldest"},
      {static_cast<gint>(Policy::kDropNewest), "Leave out the new frame",
       "drop-newest"},
      {static_cast<gint>(Policy::kLatest), "Only the newest frame waits",
       "latest"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstTripwirePolicy", values);
  return type;
}

void PostError(GstElement* element, const absl::Status& why) {
  GError* error = nullptr;
  const std::string text(why.message());
  switch (why.code()) {
    case absl::StatusCode::kNotFound:
      error = g_error_new(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND,
                          "%s", text.c_str());
      break;
    case absl::StatusCode::kPermissionDenied:
      error = g_error_new(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_AUTHORIZED,
                          "%s", text.c_str());
      break;
    case absl::StatusCode::kFailedPrecondition:
      error = g_error_new(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_BUSY, "%s",
                          text.c_str());
      break;
    case absl::StatusCode::kUnimplemented:
      error = g_error_new(GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "%s",
                          text.c_str());
      break;
    case absl::StatusCode::kInvalidArgument:
      error = g_error_new(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "%s",
                          text.c_str());
      break;
    default:
      error = g_error_new(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED, "%s",
                          text.c_str());
  }
  gst_element_post_message(element,
                           gst_message_new_error(GST_OBJECT(element), error,
                                                 why.ToString().c_str()));
  g_error_free(error);
}

CapsRef CapsOfDevice(const proto::DeviceInfo& info, bool sink) {
  CapsRef all(gst_caps_new_empty());
  for (const std::string& format :
       sink ? info.sink_formats() : info.source_formats()) {
    absl::StatusOr<CapsRef> caps = CapsOfFormat(format);
    if (caps.ok()) all.reset(gst_caps_merge(all.release(), caps->release()));
  }
  if (gst_caps_is_empty(all.get())) all.reset(gst_caps_new_any());
  return all;
}

std::string Copy(GstElement* element, const std::string& property) {
  GST_OBJECT_LOCK(element);
  std::string copy = property;
  GST_OBJECT_UNLOCK(element);
  return copy;
}

void Assign(GstElement* element, std::string& property, const GValue* value) {
  const gchar* text = g_value_get_string(value);
  GST_OBJECT_LOCK(element);
  property = text != nullptr ? text : "";
  GST_OBJECT_UNLOCK(element);
}

}  // namespace tripwire::periph

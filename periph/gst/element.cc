// SPDX-License-Identifier: BSD-3-Clause
#include "periph/gst/element.h"

#include "periph/media/formats.h"

namespace tripwire::periph {
namespace {

// All the formats of a device, or ANY if there are none that say anything.
CapsRef CapsOfDevice(const proto::DeviceInfo& info, bool is_sink) {
  CapsRef all(gst_caps_new_empty());
  for (const std::string& format :
       is_sink ? info.sink_formats() : info.source_formats()) {
    absl::StatusOr<CapsRef> caps = CapsOfFormat(format);
    if (caps.ok()) all.reset(gst_caps_merge(all.release(), caps->release()));
  }
  if (gst_caps_is_empty(all.get())) all.reset(gst_caps_new_any());
  return all;
}

}  // namespace

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

void InstallSharedProperties(GObjectClass* object_class,
                             const char* queue_says) {
  g_object_class_install_property(
      object_class, kDevice,
      g_param_spec_string("device", "Device",
                          "The device, NODE:NAME; no NODE: the only one", "",
                          kPropertyFlags));
  g_object_class_install_property(
      object_class, kPort,
      g_param_spec_string(
          "port", "Port",
          "The network, as after --port; several with spaces between", "",
          kPropertyFlags));
  g_object_class_install_property(
      object_class, kQueue,
      g_param_spec_uint("queue", "Queue", queue_says, 1, 4096, 4,
                        kPropertyFlags));
  g_object_class_install_property(
      object_class, kExclusive,
      g_param_spec_boolean("exclusive", "Exclusive",
                           "Nobody else may use the device meanwhile", FALSE,
                           kPropertyFlags));
  g_object_class_install_property(
      object_class, kReconnect,
      g_param_spec_boolean("reconnect", "Reconnect",
                           "Wait for a lost device to come back", TRUE,
                           kPropertyFlags));
}

bool ElementState::SetProperty(GstElement* element, guint id,
                               const GValue* value) {
  switch (id) {
    case kDevice:
      Assign(element, device, value);
      return true;
    case kPort:
      Assign(element, ports, value);
      return true;
    case kQueue:
      options.queue_frames = g_value_get_uint(value);
      return true;
    case kExclusive:
      options.exclusive = g_value_get_boolean(value) != FALSE;
      return true;
    case kReconnect:
      options.reconnect = g_value_get_boolean(value) != FALSE;
      return true;
    default:
      return false;
  }
}

bool ElementState::GetProperty(GstElement* element, guint id,
                               GValue* value) const {
  switch (id) {
    case kDevice:
      g_value_set_string(value, Copy(element, device).c_str());
      return true;
    case kPort:
      g_value_set_string(value, Copy(element, ports).c_str());
      return true;
    case kQueue:
      g_value_set_uint(value, options.queue_frames);
      return true;
    case kExclusive:
      g_value_set_boolean(value, options.exclusive);
      return true;
    case kReconnect:
      g_value_set_boolean(value, options.reconnect);
      return true;
    default:
      return false;
  }
}

absl::StatusOr<proto::DeviceInfo> ElementState::Connect(GstElement* element,
                                                        bool is_sink) {
  auto parsed = ParseDeviceName(Copy(element, device));
  if (!parsed.ok()) return parsed.status();
  name = *std::move(parsed);
  auto connected = ConnectTo(Copy(element, ports), name.node);
  if (!connected.ok()) return connected.status();
  auto info = (*connected)->devices->Info(name.device);
  if (!info.ok()) return info.status();
  caps = CapsOfDevice(*info, is_sink);
  connection = *std::move(connected);
  return info;
}

void ElementState::Disconnect() {
  caps.reset();
  connection.reset();
}

GstCaps* ElementState::CapsOf(GstPad* pad, GstCaps* filter) const {
  CapsRef all(caps != nullptr ? gst_caps_ref(caps.get())
                              : gst_pad_get_pad_template_caps(pad));
  if (filter == nullptr) return all.release();
  return Intersect(filter, all.get()).release();
}

}  // namespace tripwire::periph

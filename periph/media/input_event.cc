// SPDX-License-Identifier: BSD-3-Clause
#include "periph/media/input_event.h"

#include <X11/Xlib.h>
#include <gst/video/navigation.h>

namespace tripwire::periph {
namespace {

std::optional<proto::InputEvent> KeyEvent(GstEvent* event,
                                          proto::InputEvent::Kind kind) {
  const char* name = nullptr;
  if (!gst_navigation_event_parse_key_event(event, &name) || name == nullptr)
    return std::nullopt;
  const KeySym keysym = XStringToKeysym(name);
  if (keysym == NoSymbol) return std::nullopt;
  proto::InputEvent input;
  input.set_kind(kind);
  input.set_keysym(static_cast<uint32_t>(keysym));
  return input;
}

std::optional<proto::InputEvent> ButtonEvent(GstEvent* event,
                                             proto::InputEvent::Kind kind) {
  int button = 0;
  double x = 0, y = 0;
  if (!gst_navigation_event_parse_mouse_button_event(event, &button, &x, &y))
    return std::nullopt;
  proto::InputEvent input;
  input.set_kind(kind);
  input.set_button(static_cast<uint32_t>(button));
  input.set_x(x);
  input.set_y(y);
  return input;
}

}  // namespace

std::optional<proto::InputEvent> InputOfNavigation(GstEvent* event) {
  switch (gst_navigation_event_get_type(event)) {
    case GST_NAVIGATION_EVENT_KEY_PRESS:
      return KeyEvent(event, proto::InputEvent::KEY_DOWN);
    case GST_NAVIGATION_EVENT_KEY_RELEASE:
      return KeyEvent(event, proto::InputEvent::KEY_UP);
    case GST_NAVIGATION_EVENT_MOUSE_BUTTON_PRESS:
      return ButtonEvent(event, proto::InputEvent::BUTTON_DOWN);
    case GST_NAVIGATION_EVENT_MOUSE_BUTTON_RELEASE:
      return ButtonEvent(event, proto::InputEvent::BUTTON_UP);
    case GST_NAVIGATION_EVENT_MOUSE_MOVE: {
      double x = 0, y = 0;
      if (!gst_navigation_event_parse_mouse_move_event(event, &x, &y))
        return std::nullopt;
      proto::InputEvent input;
      input.set_kind(proto::InputEvent::MOTION);
      input.set_x(x);
      input.set_y(y);
      return input;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace tripwire::periph

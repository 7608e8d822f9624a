// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PERIPH_GST_X_PROGRAM_H_
#define TRIPWIRE_TESTS_UNIT_PERIPH_GST_X_PROGRAM_H_

#include <string>

// Include it last: Xlib defines words that others use as names.
#include <X11/Xlib.h>
#include <X11/Xutil.h>
#include <X11/extensions/XTest.h>
#include <X11/keysym.h>
#undef Status

namespace tripwire::periph {

// A program with a window that fills the screen and has the keyboard.
class XProgram {
 public:
  XProgram(const std::string& display, unsigned long colour)
      : display_(XOpenDisplay(display.c_str())) {
    XSetWindowAttributes attributes{};
    attributes.background_pixel = colour;
    attributes.override_redirect = True;
    attributes.event_mask = KeyPressMask | KeyReleaseMask | ButtonPressMask |
                            ButtonReleaseMask | ExposureMask;
    window_ = XCreateWindow(display_, DefaultRootWindow(display_), 0, 0, 320,
                            240, 0, CopyFromParent, InputOutput, CopyFromParent,
                            CWBackPixel | CWOverrideRedirect | CWEventMask,
                            &attributes);
    XMapRaised(display_, window_);
    while (Next().type != Expose) {
    }
    XSetInputFocus(display_, window_, RevertToParent, CurrentTime);
    // Xlib asks to hear of changes of the keyboard when it first needs its map,
    // and keeps that request back until it waits next: too late for a test.
    XKeysymToKeycode(display_, XK_a);
    XSync(display_, False);
  }
  ~XProgram() { XCloseDisplay(display_); }

  XEvent Next() {
    XEvent event;
    do {
      XNextEvent(display_, &event);
      if (event.type == MappingNotify) XRefreshKeyboardMapping(&event.xmapping);
    } while (event.type == MappingNotify);
    return event;
  }
  bool Pending() { return XPending(display_) > 0; }
  // The next key's meaning, with what is held down taken into account.
  KeySym NextKey(int type) {
    while (true) {
      XEvent event = Next();
      if (event.type != type) continue;
      KeySym keysym = NoSymbol;
      char text[8];
      XLookupString(&event.xkey, text, sizeof(text), &keysym, nullptr);
      if (!IsModifierKey(keysym)) return keysym;
    }
  }
  bool IsDown(KeySym keysym) {
    char keys[32];
    XQueryKeymap(display_, keys);
    const KeyCode code = XKeysymToKeycode(display_, keysym);
    return (keys[code / 8] >> (code % 8)) & 1;
  }

 private:
  Display* const display_;
  Window window_ = 0;
};

// Somebody at a screen's keyboard and pointer.
class XTyper {
 public:
  explicit XTyper(const std::string& display)
      : display_(XOpenDisplay(display.c_str())) {}
  ~XTyper() { XCloseDisplay(display_); }
  void Click(int x, int y) {
    XTestFakeMotionEvent(display_, -1, x, y, CurrentTime);
    XTestFakeButtonEvent(display_, 1, True, CurrentTime);
    XTestFakeButtonEvent(display_, 1, False, CurrentTime);
    XSync(display_, False);
  }
  void Type(KeySym keysym) {
    const KeyCode code = XKeysymToKeycode(display_, keysym);
    XTestFakeKeyEvent(display_, code, True, CurrentTime);
    XTestFakeKeyEvent(display_, code, False, CurrentTime);
    XSync(display_, False);
  }

 private:
  Display* const display_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_UNIT_PERIPH_GST_X_PROGRAM_H_

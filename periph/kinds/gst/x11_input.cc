// SPDX-License-Identifier: BSD-3-Clause
#include "periph/kinds/gst/x11_input.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "periph/kinds/gst/x11_display.h"
#include "periph/media/input_event.h"

// Last: Xlib defines words that others use as names.
#include <X11/XKBlib.h>
#include <X11/Xlib.h>
#include <X11/extensions/XTest.h>
#include <X11/keysym.h>
#undef Status

namespace tripwire::periph {
namespace {

constexpr uint64_t kMaxEventBytes = 4096;
constexpr uint32_t kMaxButton = 15;

class X11Input final : public Sink {
 public:
  explicit X11Input(DisplayRef display)
      : owned_(std::move(display)), display_(owned_.get()) {
    XSetIOErrorExitHandler(
        display_,
        [](Display*, void* lost) { *static_cast<bool*>(lost) = true; }, &lost_);
    FindSpareKeys();
  }
  ~X11Input() override { LetGo(); }

  const std::string& format() const override { return format_; }
  uint64_t max_frame_bytes() const override { return kMaxEventBytes; }
  absl::Status Put(const Frame& frame) override;
  absl::Status Drain() override {
    XSync(display_, False);
    return absl::OkStatus();
  }
  void Cancel() override { cancelled_ = true; }

 private:
  struct Key {
    KeyCode code = 0;  // 0: there is none
    bool shifted = false;
  };
  void FindSpareKeys();
  Key KeyFor(KeySym keysym);
  void Press(KeySym keysym);
  void Release(KeySym keysym);
  void Move(double x, double y);
  bool HoldsShift() const {
    return held_.count(XK_Shift_L) + held_.count(XK_Shift_R) +
               held_.count(XK_Shift_Lock) >
           0;
  }
  void LetGo();

  const std::string format_ = kInputFormat;
  DisplayRef owned_;
  Display* const display_;
  std::atomic<bool> cancelled_{false};
  bool lost_ = false;
  std::map<KeySym, KeyCode> held_;
  std::set<uint32_t> buttons_;
  std::vector<KeyCode> spare_;      // keys without a meaning of their own
  std::map<KeySym, KeyCode> lent_;  // ... and what they mean now
  size_t next_spare_ = 0;
};

void X11Input::FindSpareKeys() {
  int low = 0, high = 0, width = 0;
  XDisplayKeycodes(display_, &low, &high);
  KeySym* map = XGetKeyboardMapping(display_, static_cast<KeyCode>(low),
                                    high - low + 1, &width);
  if (map == nullptr) return;
  for (int code = high; code >= low && spare_.size() < 8; --code) {
    const KeySym* begin = map + static_cast<ptrdiff_t>(code - low) * width;
    const bool free = std::all_of(begin, begin + width,
                                  [](KeySym k) { return k == NoSymbol; });
    if (free) spare_.push_back(static_cast<KeyCode>(code));
  }
  XFree(map);
}

X11Input::Key X11Input::KeyFor(KeySym keysym) {
  const KeyCode code = XKeysymToKeycode(display_, keysym);
  if (code != 0) {
    if (XkbKeycodeToKeysym(display_, code, 0, 0) == keysym)
      return {code, false};
    if (XkbKeycodeToKeysym(display_, code, 0, 1) == keysym) return {code, true};
  }
  // A key that this keyboard does not have: a spare one gets its meaning.
  const auto lent = lent_.find(keysym);
  if (lent != lent_.end()) return {lent->second, false};
  if (spare_.empty()) return {};
  const KeyCode borrowed = spare_[next_spare_++ % spare_.size()];
  for (auto at = lent_.begin(); at != lent_.end();) {
    at = at->second == borrowed ? lent_.erase(at) : std::next(at);
  }
  KeySym both[2] = {keysym, keysym};
  XChangeKeyboardMapping(display_, borrowed, 2, both, 1);
  XSync(display_, False);
  lent_[keysym] = borrowed;
  return {borrowed, false};
}

void X11Input::Press(KeySym keysym) {
  const Key key = KeyFor(keysym);
  if (key.code == 0) return;
  const KeyCode shift = XKeysymToKeycode(display_, XK_Shift_L);
  const bool add_shift = key.shifted && !HoldsShift() && shift != 0;
  if (add_shift) XTestFakeKeyEvent(display_, shift, True, CurrentTime);
  XTestFakeKeyEvent(display_, key.code, True, CurrentTime);
  if (add_shift) XTestFakeKeyEvent(display_, shift, False, CurrentTime);
  held_[keysym] = key.code;
}

void X11Input::Release(KeySym keysym) {
  const auto held = held_.find(keysym);
  if (held == held_.end()) return;
  XTestFakeKeyEvent(display_, held->second, False, CurrentTime);
  held_.erase(held);
}

void X11Input::Move(double x, double y) {
  const int screen = DefaultScreen(display_);
  const auto within = [](double at, int size) {
    return static_cast<int>(
        std::clamp(std::isfinite(at) ? at : 0.0, 0.0, size - 1.0));
  };
  XTestFakeMotionEvent(display_, screen,
                       within(x, DisplayWidth(display_, screen)),
                       within(y, DisplayHeight(display_, screen)), CurrentTime);
}

absl::Status X11Input::Put(const Frame& frame) {
  if (cancelled_) return absl::CancelledError("cancelled");
  proto::InputEvent event;
  if (frame.data.size() > kMaxEventBytes ||
      !event.ParseFromArray(frame.data.data(),
                            static_cast<int>(frame.data.size()))) {
    return absl::InvalidArgumentError("not an input event");
  }
  const uint32_t button = event.button();
  switch (event.kind()) {
    case proto::InputEvent::KEY_DOWN:
      Press(event.keysym());
      break;
    case proto::InputEvent::KEY_UP:
      Release(event.keysym());
      break;
    case proto::InputEvent::BUTTON_DOWN:
      if (button < 1 || button > kMaxButton) break;
      Move(event.x(), event.y());
      XTestFakeButtonEvent(display_, button, True, CurrentTime);
      buttons_.insert(button);
      break;
    case proto::InputEvent::BUTTON_UP:
      if (buttons_.erase(button) == 0) break;
      Move(event.x(), event.y());
      XTestFakeButtonEvent(display_, button, False, CurrentTime);
      break;
    case proto::InputEvent::MOTION:
      Move(event.x(), event.y());
      break;
    default:
      break;  // of a later version
  }
  XSync(display_, False);
  return lost_ ? absl::UnavailableError("the X display has gone")
               : absl::OkStatus();
}

// Nobody is left who would: a user who goes in the middle of a keystroke must
// not leave the key down.
void X11Input::LetGo() {
  for (const auto& key : held_)
    XTestFakeKeyEvent(display_, key.second, False, CurrentTime);
  for (const uint32_t button : buttons_) {
    XTestFakeButtonEvent(display_, button, False, CurrentTime);
  }
  for (const auto& lent : lent_) {
    KeySym none[2] = {NoSymbol, NoSymbol};
    XChangeKeyboardMapping(display_, lent.second, 2, none, 1);
  }
  XSync(display_, False);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sink>> StartX11Input(const std::string& name) {
  absl::StatusOr<DisplayRef> display = OpenDisplay(name);
  if (!display.ok()) return display.status();
  int event = 0, error = 0, major = 0, minor = 0;
  if (!XTestQueryExtension(display->get(), &event, &error, &major, &minor)) {
    return absl::UnimplementedError(absl::StrCat(
        "X display ", name, " takes no input: it has no XTEST extension"));
  }
  return std::make_unique<X11Input>(*std::move(display));
}

}  // namespace tripwire::periph

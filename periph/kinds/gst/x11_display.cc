// SPDX-License-Identifier: BSD-3-Clause
#include "periph/kinds/gst/x11_display.h"

#include <dlfcn.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

// Last: Xlib defines words that others use as names.
#include <X11/Xlib.h>
#undef Status

namespace {

void LiveOn(Display*, void*) {}
int IgnoreError(Display*, XErrorEvent*) { return 0; }

}  // namespace

// Xlib ends the process when a display goes, unless the connection has a
// handler that returns. GStreamer's elements open connections of their own, so
// all connections of this process get one as they are made: the linker prefers
// this function to Xlib's. What uses the connection then fails by itself.
extern "C" Display* XOpenDisplay(const char* name) {
  using Open = Display* (*)(const char*);
  static const Open open =
      reinterpret_cast<Open>(dlsym(RTLD_NEXT, "XOpenDisplay"));
  if (open == nullptr) return nullptr;
  // A request that the server refuses (a window that has just gone) is no
  // reason to end.
  static const bool ready = [] {
    XInitThreads();
    XSetErrorHandler(&IgnoreError);
    XSetIOErrorHandler([](Display*) { return 0; });
    return true;
  }();
  (void)ready;
  Display* display = open(name);
  if (display != nullptr) XSetIOErrorExitHandler(display, &LiveOn, nullptr);
  return display;
}

namespace tripwire::periph {

void CloseDisplay::operator()(_XDisplay* display) const {
  XCloseDisplay(display);
}

absl::StatusOr<DisplayRef> OpenDisplay(const std::string& name) {
  DisplayRef display(XOpenDisplay(name.c_str()));
  if (display != nullptr) return display;
  return absl::UnavailableError(absl::StrCat("there is no X display ", name));
}

absl::StatusOr<std::unique_ptr<DisplayWatch>> DisplayWatch::Start(
    const std::string& name, std::function<void()> lost) {
  absl::StatusOr<DisplayRef> display = OpenDisplay(name);
  if (!display.ok()) return display.status();
  UniqueFd stop(eventfd(0, EFD_CLOEXEC));
  if (stop.get() < 0) return absl::ErrnoToStatus(errno, "eventfd");
  return std::unique_ptr<DisplayWatch>(
      new DisplayWatch(*std::move(display), std::move(stop), std::move(lost)));
}

DisplayWatch::DisplayWatch(DisplayRef display, UniqueFd stop,
                           std::function<void()> lost)
    : display_(std::move(display)),
      stop_(std::move(stop)),
      lost_(std::move(lost)),
      thread_([this] { Run(); }) {}

DisplayWatch::~DisplayWatch() {
  eventfd_write(stop_.get(), 1);
  thread_.join();
}

void DisplayWatch::Run() {
  const int connection = ConnectionNumber(display_.get());
  while (true) {
    pollfd fds[] = {{connection, POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    if (fds[0].revents == 0) continue;
    // Nothing was asked for: what can be read are rare notices, or the end.
    char byte;
    const ssize_t got = recv(connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    const bool open =
        got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
    if (!open || (fds[0].revents & (POLLHUP | POLLERR)) != 0) return lost_();
    XEvent event;
    while (XPending(display_.get()) > 0) XNextEvent(display_.get(), &event);
  }
}

}  // namespace tripwire::periph

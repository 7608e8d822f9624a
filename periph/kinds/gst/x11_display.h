// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_KINDS_GST_X11_DISPLAY_H_
#define TRIPWIRE_PERIPH_KINDS_GST_X11_DISPLAY_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "nic/base/fd.h"

// Xlib's type, named here so that its macros stay out of headers.
struct _XDisplay;

namespace tripwire::periph {

struct CloseDisplay {
  void operator()(_XDisplay* display) const;
};
using DisplayRef = std::unique_ptr<_XDisplay, CloseDisplay>;

// A connection of ours. UNAVAILABLE if nobody answers under that name.
absl::StatusOr<DisplayRef> OpenDisplay(const std::string& name);

// Calls `lost` once, on a thread of its own, when the display goes.
class DisplayWatch {
 public:
  static absl::StatusOr<std::unique_ptr<DisplayWatch>> Start(
      const std::string& name, std::function<void()> lost);
  ~DisplayWatch();

 private:
  DisplayWatch(DisplayRef display, UniqueFd stop, std::function<void()> lost);
  void Run();

  DisplayRef display_;
  UniqueFd stop_;
  std::function<void()> lost_;
  std::thread thread_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_KINDS_GST_X11_DISPLAY_H_

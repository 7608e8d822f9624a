// SPDX-License-Identifier: BSD-3-Clause
// tw-periph view: a device's picture in a window or in the terminal; its sound
// by the loudspeaker. A screen's window passes keyboard and pointer back.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "periph/gst/input_sender.h"
#include "periph/media/input_event.h"
#include "periph/media/window.h"
#include "periph/tools/commands.h"
#include "periph/tools/quiet_terminal.h"
#include "periph/tools/session.h"

namespace tripwire::periph::tools {
namespace {

struct ViewOptions {
  Where where;
  StreamFlags flags;
  std::string device;
  uint64_t frames = 0;
  bool terminal = false;
  bool no_input = false;
};

bool HasDisplay() {
  const auto set = [](const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0';
  };
  return set("DISPLAY") || set("WAYLAND_DISPLAY");
}

// Columns and rows of the terminal; nothing where the picture goes to a window,
// or there is none because it is sound.
using Size = std::optional<std::pair<uint32_t, uint32_t>>;

Size TerminalSize(const ViewOptions& options, const std::string& format) {
  if (absl::StartsWith(format, "audio/")) return std::nullopt;
  if (!options.terminal && HasDisplay()) return std::nullopt;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
    return std::pair(80u, 24u);
  return std::pair<uint32_t, uint32_t>(size.ws_col, size.ws_row);
}

absl::StatusOr<std::unique_ptr<Sink>> Open(const Size& terminal,
                                           const std::string& format,
                                           InputSender* input) {
  if (terminal.has_value()) {
    if (isatty(STDOUT_FILENO) == 0) {
      return absl::FailedPreconditionError(
          "no picture can be drawn: standard output is no terminal (to keep what "
          "the device makes, use cat or record)");
    }
    return ShowInTerminal(format, terminal->first, terminal->second);
  }
  if (input == nullptr) return ShowInWindow(format, {});
  return ShowInWindow(
      format, [input](const proto::InputEvent& event) { input->Send(event); });
}

// What shows the frames at the moment. Whoever ends the program ends a Put that
// waits, too: for a loudspeaker, or for a terminal that takes nothing more.
class Shown {
 public:
  Sink* get() { return sink_.get(); }
  void Set(std::unique_ptr<Sink> sink) {
    {
      const std::lock_guard lock(mutex_);
      std::swap(sink_, sink);
      if (cancelled_ && sink_ != nullptr) sink_->Cancel();
    }
    // The one before goes here: that may take its time.
  }
  void Cancel() {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (sink_ != nullptr) sink_->Cancel();
  }

 private:
  std::mutex mutex_;
  bool cancelled_ = false;
  std::unique_ptr<Sink> sink_;
};

// `begin_drawing` is called once a picture is about to be on the terminal.
absl::Status ShowFrames(FrameStream& stream, const ViewOptions& options,
                        InputSender* input, Shown& shown,
                        const std::function<void()>& begin_drawing) {
  std::string format;
  Size size;
  for (uint64_t taken = 0; options.frames == 0 || taken < options.frames;
       ++taken) {
    auto view = stream.Next(kNever);
    if (absl::IsOutOfRange(view.status()) || absl::IsCancelled(view.status()))
      break;
    if (!view.ok()) return view.status();
    // A terminal's size may change at any time.
    const Size size_now = TerminalSize(options, stream.format());
    if (shown.get() == nullptr || stream.format() != format || size_now != size) {
      shown.Set(nullptr);
      format = stream.format();
      size = size_now;
      auto opened = Open(size, format, input);
      if (!opened.ok()) return opened.status();
      shown.Set(*std::move(opened));
      if (size.has_value()) begin_drawing();
    }
    Frame frame = view->frame();
    frame.data = view->data();
    frame.owner = std::make_shared<FrameView>(*std::move(view));
    const absl::Status put = shown.get()->Put(frame);
    if (absl::IsCancelled(put))
      return absl::OkStatus();  // the user closed the window, or wants no more
    if (!put.ok()) return put;
  }
  return absl::OkStatus();
}

absl::Status Show(FrameStream& stream, const ViewOptions& options,
                  InputSender* input, Stopper& stopper) {
  Shown shown;
  const auto stop = [&] {
    shown.Cancel();
    stream.Cancel();
  };
  stopper.Set(stop);
  std::optional<QuietTerminal> quiet;
  const absl::Status status = ShowFrames(stream, options, input, shown, [&] {
    if (!quiet.has_value()) quiet.emplace(STDOUT_FILENO, STDIN_FILENO, stop);
  });
  // The picture leaves the terminal, and then that is as it was.
  shown.Set(nullptr);
  quiet.reset();
  stopper.Set({});
  return status;
}

absl::Status Run(const ViewOptions& options) {
  Stopper stopper;
  auto session = OpenSession(options.where, options.device, "tw-periph view");
  if (!session.ok()) return session.status();
  auto info = session->peripherals->Info(session->name.device);
  if (!info.ok()) return info.status();
  const auto& sinks = info->sink_formats();
  std::unique_ptr<InputSender> input;
  if (!options.no_input &&
      std::find(sinks.begin(), sinks.end(), kInputFormat) != sinks.end()) {
    input = std::make_unique<InputSender>(
        *session->peripherals, session->nic->clock(), session->name.device);
  }
  StreamOptions stream_options = options.flags.ToOptions();
  // What is old is of no interest.
  if (options.flags.policy.empty()) stream_options.policy = Policy::kLatest;
  auto stream =
      session->peripherals->OpenSource(session->name.device, stream_options);
  if (!stream.ok()) return stream.status();
  return Show(**stream, options, input.get(), stopper);
}

const RegisterCommand kView("view", [](CLI::App& app, Runner& run) {
  auto options = std::make_shared<ViewOptions>();
  CLI::App* command =
      app.add_subcommand("view",
                         "A device's picture in a window, or in the terminal "
                         "where there is no display (q ends it); its sound "
                         "by the loudspeaker. A screen's window passes "
                         "keyboard and pointer on to the screen.");
  options->where.AddTo(*command);
  options->flags.AddTo(*command);
  command->add_option("--frames,-n", options->frames,
                      "end after so many frames (0: never)");
  command->add_flag("--terminal,-t", options->terminal,
                    "in the terminal, although there is a display");
  command->add_flag("--no-input", options->no_input,
                    "keep keyboard and pointer here");
  command->add_option("DEVICE", options->device, "NODE:NAME")->required();
  command->callback(
      [options, &run] { run = [options] { return Run(*options); }; });
});

}  // namespace
}  // namespace tripwire::periph::tools

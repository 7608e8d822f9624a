// SPDX-License-Identifier: BSD-3-Clause
// tw-periph view: a device's picture in a window or in the terminal; its sound
// by the loudspeaker. A screen's window passes keyboard and pointer back.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "periph/gst/input_sender.h"
#include "periph/media/input_event.h"
#include "periph/media/window.h"
#include "periph/tools/commands.h"
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

absl::StatusOr<std::unique_ptr<Sink>> Open(const ViewOptions& options,
                                           const std::string& format,
                                           InputSender* input) {
  if (options.terminal || !HasDisplay()) {
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
      size.ws_col = 80;
      size.ws_row = 24;
    }
    return ShowInTerminal(format, size.ws_col, size.ws_row);
  }
  if (input == nullptr) return ShowInWindow(format, {});
  return ShowInWindow(
      format, [input](const proto::InputEvent& event) { input->Send(event); });
}

absl::Status Show(FrameStream& stream, const ViewOptions& options,
                  InputSender* input) {
  std::unique_ptr<Sink> shown;
  std::string format;
  for (uint64_t taken = 0; options.frames == 0 || taken < options.frames;
       ++taken) {
    auto view = stream.Next(kNever);
    if (absl::IsOutOfRange(view.status()) || absl::IsCancelled(view.status()))
      break;
    if (!view.ok()) return view.status();
    if (shown == nullptr || stream.format() != format) {
      shown.reset();
      format = stream.format();
      auto opened = Open(options, format, input);
      if (!opened.ok()) return opened.status();
      shown = *std::move(opened);
    }
    Frame frame = view->frame();
    frame.data = view->data();
    frame.owner = std::make_shared<FrameView>(*std::move(view));
    const absl::Status put = shown->Put(frame);
    if (absl::IsCancelled(put))
      return absl::OkStatus();  // the user closed the window
    if (!put.ok()) return put;
  }
  return absl::OkStatus();
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
  stopper.Set([raw = stream->get()] { raw->Cancel(); });
  const absl::Status status = Show(**stream, options, input.get());
  stopper.Set({});
  return status;
}

const RegisterCommand kView("view", [](CLI::App& app, Runner& run) {
  auto options = std::make_shared<ViewOptions>();
  CLI::App* command =
      app.add_subcommand("view",
                         "A device's picture in a window, or in the terminal "
                         "where there is no display; its sound "
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

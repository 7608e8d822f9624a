// SPDX-License-Identifier: BSD-3-Clause
// tw-periph record: what a device makes, to a file of the usual kind.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/media/media_writer.h"
#include "periph/tools/commands.h"
#include "periph/tools/session.h"

namespace tripwire::periph::tools {
namespace {

constexpr uint64_t kProgressNs = 500 * kMillisecond;

struct RecordOptions {
  Where where;
  StreamFlags flags;
  std::string device, file;
  uint64_t frames = 0;
  double seconds = 0;
  bool quiet = false;
};

// What was recorded, in one line; on a terminal it is drawn again and again.
class Progress {
 public:
  Progress(const RecordOptions& options, Clock& clock)
      : file_(options.file),
        draws_(!options.quiet && isatty(STDERR_FILENO) != 0),
        clock_(clock),
        begin_ns_(clock.NowNs()) {}
  void Count(uint64_t bytes) {
    ++frames_;
    bytes_ += bytes;
  }
  uint64_t frames() const { return frames_; }
  uint64_t begin_ns() const { return begin_ns_; }
  void Draw(const RingCounters& counters) {
    if (!draws_ || clock_.NowNs() < next_ns_) return;
    next_ns_ = clock_.NowNs() + kProgressNs;
    fmt::print(stderr, "\r{}\x1b[K", Line(counters));
    std::fflush(stderr);
  }
  void Close(const RingCounters& counters) {
    fmt::print(stderr, "{}{}\n", draws_ ? "\r\x1b[K" : "", Line(counters));
  }

 private:
  std::string Line(const RingCounters& counters) const {
    const double seconds =
        static_cast<double>(clock_.NowNs() - begin_ns_) / 1e9;
    return fmt::format(
        "{}: {} frames, {:.1f} MB in {:.1f} s; missing: {} dropped, {} "
        "overrun, {} lost",
        file_, frames_, static_cast<double>(bytes_) / 1e6, seconds,
        counters.dropped, counters.overrun, counters.lost);
  }
  const std::string file_;
  const bool draws_;
  Clock& clock_;
  const uint64_t begin_ns_;
  uint64_t next_ns_ = 0, frames_ = 0, bytes_ = 0;
};

// Frames until the user, a limit or the stream ends it.
absl::Status Copy(FrameStream& stream, const RecordOptions& options,
                  Clock& clock, Progress& progress,
                  std::unique_ptr<Sink>& file) {
  const uint64_t end_ns =
      options.seconds > 0
          ? progress.begin_ns() + static_cast<uint64_t>(options.seconds * 1e9)
          : kNever;
  const uint64_t count = TakesOnePicture(options.file) ? 1 : options.frames;
  std::string format;
  while (count == 0 || progress.frames() < count) {
    const uint64_t now_ns = clock.NowNs();
    if (now_ns >= end_ns) break;
    auto view = stream.Next(std::min(end_ns, now_ns + kProgressNs));
    progress.Draw(stream.counters());
    if (absl::IsDeadlineExceeded(view.status())) continue;
    if (absl::IsOutOfRange(view.status()) || absl::IsCancelled(view.status()))
      break;
    if (!view.ok()) return view.status();
    if (file == nullptr) {
      format = stream.format();
      auto opened = WriteToFile(format, options.file);
      if (!opened.ok()) return opened.status();
      file = *std::move(opened);
    } else if (stream.format() != format) {
      return absl::UnimplementedError(
          absl::StrCat("the device changed its format to ", stream.format(),
                       ": the file ends"));
    }
    // Copied: a file's elements may keep frames for long, and so stop the ring.
    Frame frame = view->frame();
    frame.data = view->data();
    frame.owner = nullptr;
    if (const absl::Status put = file->Put(frame); !put.ok()) return put;
    progress.Count(view->data().size());
  }
  return absl::OkStatus();
}

absl::Status Run(const RecordOptions& options) {
  Stopper stopper;
  auto session = OpenSession(options.where, options.device, "tw-periph record");
  if (!session.ok()) return session.status();
  StreamOptions stream_options = options.flags.ToOptions();
  auto stream =
      session->peripherals->OpenSource(session->name.device, stream_options);
  if (!stream.ok()) return stream.status();
  stopper.Set([raw = stream->get()] { raw->Cancel(); });
  Clock& clock = session->nic->clock();
  Progress progress(options, clock);
  std::unique_ptr<Sink> file;
  absl::Status status = Copy(**stream, options, clock, progress, file);
  // However it ended, the file is made whole.
  if (file != nullptr) {
    const absl::Status drained = file->Drain();
    if (status.ok()) status = drained;
  }
  file.reset();
  stopper.Set({});
  if (progress.frames() > 0) progress.Close((*stream)->counters());
  if (status.ok() && progress.frames() == 0) {
    return absl::UnavailableError("nothing came: no file was written");
  }
  return status;
}

const RegisterCommand kRecord("record", [](CLI::App& app, Runner& run) {
  auto options = std::make_shared<RecordOptions>();
  CLI::App* command = app.add_subcommand(
      "record",
      "What a device makes, to a file by its suffix: .y4m .avi .mkv .webm for "
      "video, .wav .flac "
      ".ogg .mkv for sound, .png .jpg for a picture (%04d in the name: for "
      "each), any other: "
      "the bytes as they are. Ctrl-C ends it; the file is whole.");
  options->flags.queue = 16;
  options->flags.slots = 16;
  options->where.AddTo(*command);
  options->flags.AddTo(*command);
  command->add_option("--frames,-n", options->frames,
                      "end after so many frames (0: never)");
  command
      ->add_option("--duration,-d", options->seconds,
                   "end after so many seconds")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--quiet,-q", options->quiet, "no progress line");
  command->add_option("DEVICE", options->device, "NODE:NAME")->required();
  command->add_option("FILE", options->file, "where to")->required();
  command->callback(
      [options, &run] { run = [options] { return Run(*options); }; });
});

}  // namespace
}  // namespace tripwire::periph::tools

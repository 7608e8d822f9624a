// SPDX-License-Identifier: BSD-3-Clause
// tw-periph cat: what a device makes, to standard output; or standard input to a device.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nic/base/fd.h"
#include "periph/media/media_writer.h"
#include "periph/tools/commands.h"
#include "periph/tools/session.h"

namespace tripwire::periph::tools {
namespace {

struct CatOptions {
  Where where;
  StreamFlags flags;
  std::string device;
  uint64_t count = 0;
  bool raw = false;
  bool quiet = false;
  bool to_device = false;
};

bool MakesBytes(const proto::DeviceInfo& info) {
  return !info.source_formats().empty() &&
         std::all_of(info.source_formats().begin(), info.source_formats().end(),
                     [](const std::string& format) { return format == kByteStream; });
}

// Of a byte stream nothing may be missing, so it is had whole unless others use it too.
absl::StatusOr<std::unique_ptr<FrameStream>> OpenStream(Session& session,
                                                        const CatOptions& options) {
  StreamOptions stream = options.flags.ToOptions();
  if (options.flags.policy.empty()) {
    auto info = session.peripherals->Info(session.name.device);
    if (!info.ok()) return info.status();
    if (MakesBytes(*info)) {
      StreamOptions whole = stream;
      whole.policy = Policy::kBlock;
      whole.exclusive = true;
      auto opened = session.peripherals->OpenSource(session.name.device, whole);
      if (options.flags.exclusive || !absl::IsFailedPrecondition(opened.status())) return opened;
    }
  }
  return session.peripherals->OpenSource(session.name.device, stream);
}

// Where frames of one format go: as they are, or through what knows the kind of file.
// Small ones are collected, so that a system call carries many, until Flush.
class Writer {
 public:
  static absl::StatusOr<std::unique_ptr<Writer>> New(const std::string& format, bool raw) {
    auto writer = std::make_unique<Writer>();
    if (raw || format == kByteStream) return writer;
    auto media = WriteToBytes(
        format, [](std::span<const uint8_t> bytes) { return WriteAll(STDOUT_FILENO, bytes); });
    if (!media.ok()) return media.status();
    writer->media_ = *std::move(media);
    return writer;
  }
  // False, here and below: nobody reads it any more.
  absl::StatusOr<bool> Write(const Frame& frame) {
    if (media_ != nullptr) return GoesOn(media_->Put(frame));
    if (collected_.size() + frame.data.size() > kCollectedBytes) {
      auto goes_on = Flush();
      if (!goes_on.ok() || !*goes_on) return goes_on;
      if (frame.data.size() > kCollectedBytes) return WriteAll(STDOUT_FILENO, frame.data);
    }
    collected_.insert(collected_.end(), frame.data.begin(), frame.data.end());
    return true;
  }
  bool has_collected() const { return !collected_.empty(); }
  absl::StatusOr<bool> Flush() {
    auto goes_on = WriteAll(STDOUT_FILENO, collected_);
    collected_.clear();
    return goes_on;
  }
  absl::Status Finish() {
    return media_ == nullptr ? Flush().status() : GoesOn(media_->Drain()).status();
  }

 private:
  static constexpr size_t kCollectedBytes = 1u << 16;
  static absl::StatusOr<bool> GoesOn(const absl::Status& status) {
    if (absl::IsCancelled(status)) return false;
    if (!status.ok()) return status;
    return true;
  }
  std::unique_ptr<Sink> media_;
  std::vector<uint8_t> collected_;
};

bool IsEnd(const absl::Status& status) {
  return absl::IsOutOfRange(status) || absl::IsCancelled(status);
}

// To the end of the stream, of the reader's patience, or of `count` frames.
absl::Status Copy(FrameStream& stream, const CatOptions& options) {
  std::unique_ptr<Writer> writer = std::make_unique<Writer>();
  std::string format;
  uint64_t taken = 0;
  while (options.count == 0 || taken < options.count) {
    auto view = stream.Next(writer->has_collected() ? 0 : kNever);
    absl::StatusOr<bool> goes_on = true;
    if (absl::IsDeadlineExceeded(view.status())) {
      goes_on = writer->Flush();
    } else if (!view.ok()) {
      const absl::Status rest = writer->Finish();
      return IsEnd(view.status()) ? rest : view.status();
    } else {
      if (taken == 0 || stream.format() != format) {
        if (auto status = writer->Finish(); !status.ok()) return status;
        format = stream.format();
        auto made = Writer::New(format, options.raw);
        if (!made.ok()) return made.status();
        writer = *std::move(made);
      }
      goes_on = writer->Write(view->frame());
      ++taken;
    }
    if (!goes_on.ok()) return goes_on.status();
    if (!*goes_on) return absl::OkStatus();
  }
  return writer->Finish();
}

absl::Status FromDevice(Session& session, const CatOptions& options, Stopper& stopper) {
  auto stream = OpenStream(session, options);
  if (!stream.ok()) return stream.status();
  stopper.Set([raw = stream->get()] { raw->Cancel(); });
  if (!(*stream)->device_present() && !options.quiet) {
    std::fprintf(stderr, "tw-periph: waiting for the device\n");
  }
  const absl::Status status = Copy(**stream, options);
  stopper.Set({});
  const RingCounters counters = (*stream)->counters();
  const uint64_t missing = counters.dropped + counters.lost + counters.overrun;
  if (missing > 0 && !options.quiet) {
    std::fprintf(stderr,
                 "tw-periph: of %llu frames, %llu were dropped because we were slow, %llu lost by "
                 "the device, %llu by the network\n",
                 static_cast<unsigned long long>(counters.received + missing),
                 static_cast<unsigned long long>(counters.dropped),
                 static_cast<unsigned long long>(counters.overrun),
                 static_cast<unsigned long long>(counters.lost));
  }
  return status;
}

// False: SIGINT or SIGTERM came first.
bool AwaitInput(int stop_fd) {
  pollfd waits[] = {{STDIN_FILENO, POLLIN, 0}, {stop_fd, POLLIN, 0}};
  while (::poll(waits, 2, -1) < 0) {
  }
  return waits[1].revents == 0;
}

absl::Status PutAll(FrameOutput& output, Clock& clock, int stop_fd) {
  std::vector<uint8_t> buffer(std::min<uint64_t>(output.max_frame_bytes(), 1u << 16));
  while (AwaitInput(stop_fd)) {
    const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, "reading failed");
    if (n == 0) return output.Finish(kNever);
    Frame frame;
    frame.data = {buffer.data(), static_cast<size_t>(n)};
    frame.capture_ns = clock.NowNs();
    if (auto put = output.Put(frame, kNever); !put.ok()) return put;
  }
  return absl::CancelledError("interrupted");
}

absl::Status ToDevice(Session& session, const CatOptions& options, Stopper& stopper) {
  auto output = session.peripherals->OpenSink(session.name.device, options.flags.ToOptions());
  if (!output.ok()) return output.status();
  const UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  stopper.Set([&stop, raw = output->get()] {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(stop.get(), &one, sizeof one);
    raw->Cancel();
  });
  const absl::Status status = PutAll(**output, session.nic->clock(), stop.get());
  stopper.Set({});
  return absl::IsCancelled(status) ? absl::OkStatus() : status;
}

absl::Status Run(const CatOptions& options) {
  Stopper stopper;
  auto session = OpenSession(options.where, options.device, "tw-periph cat");
  if (!session.ok()) return session.status();
  return options.to_device ? ToDevice(*session, options, stopper)
                           : FromDevice(*session, options, stopper);
}

const RegisterCommand kCat("cat", [](CLI::App& app, Runner& run) {
  auto options = std::make_shared<CatOptions>();
  CLI::App* command = app.add_subcommand(
      "cat",
      "What a device makes, to standard output: Y4M for raw video, WAV for raw sound, else "
      "its bytes");
  options->where.AddTo(*command);
  options->flags.AddTo(*command);
  command->add_option("--count,-n", options->count, "end after so many frames (0: never)");
  command->add_flag("--raw", options->raw, "frames as they are, also of video and sound");
  command->add_flag("--quiet,-q", options->quiet, "say nothing of frames that are missing");
  command->add_flag("--to", options->to_device, "the other way: standard input to the device");
  command->add_option("DEVICE", options->device, "NODE:NAME")->required();
  command->callback([options, &run] { run = [options] { return Run(*options); }; });
});

}  // namespace
}  // namespace tripwire::periph::tools

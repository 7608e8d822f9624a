// SPDX-License-Identifier: BSD-3-Clause
#include "periph/tools/attach_serial.h"

#include <poll.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/device/line_settings.h"
#include "periph/tools/local_pty.h"

namespace tripwire::periph::tools {
namespace {

constexpr uint32_t kSlots = 16;
// How long the device's going may stay unnoticed while nothing comes from it.
constexpr uint64_t kLookEveryNs = 500 * kMillisecond;
// How often settings are looked at when the kernel does not tell, and a
// terminal that nobody has open when it cannot.
constexpr int kFollowEveryMs = 50;
constexpr int kRetryEveryMs = 1000;
// What was typed is carried to its end, but not for ever, when we are told to
// end.
constexpr uint64_t kFinishWithinNs = 2 * kSecond;
// What the device said last is there for the program for so long.
constexpr int kLastWordsMs = 1000;

std::string Text(const absl::Status& status) {
  return std::string(status.message());
}

// What is carried from the terminal's settings to the device's controls.
class SettingsCarrier {
 public:
  SettingsCarrier(Peripherals& peripherals, std::string device)
      : peripherals_(peripherals), device_(std::move(device)) {}

  // The device's settings now; nothing if it has none.
  std::optional<LineSettings> Learn() {
    const auto controls = peripherals_.Controls(device_);
    if (!controls.ok()) return std::nullopt;
    bool has_any = false;
    for (const Control& control : *controls) {
      has_any |= SetLineControl(remote_, control.name, control.value).ok();
    }
    has_line_ = has_any;
    first_parity_ = remote_.parity;
    return has_any ? std::optional(remote_) : std::nullopt;
  }
  // How the terminal is before any program touched it.
  void SetBaseline(const LocalPty::Seen& seen) { seen_ = seen; }

  // Carries what differs from what was seen last, so that what others set at
  // the device is left alone.
  void Carry(const LocalPty::Seen& now) {
    if (!has_line_ || now == seen_) return;
    LineSettings before = seen_.settings, after = now.settings;
    if (now.parity != seen_.parity) {
      // Without a mark of it there may be none or even; as it was is the best
      // guess.
      after.parity = now.parity.value_or(first_parity_);
      before.parity = seen_.parity.value_or(first_parity_);
    }
    const std::vector<Control> were = LineControls(before),
                               are = LineControls(after);
    bool is_done = true;
    for (size_t i = 0; i < are.size(); ++i) {
      if (are[i].value != were[i].value) is_done &= Set(are[i]);
    }
    if (is_done) seen_ = now;
  }

 private:
  // False: the server could not be asked; try again.
  bool Set(const Control& control) {
    const auto status =
        peripherals_.SetControl(device_, control.name, control.value);
    if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status))
      return false;
    if (status.ok()) {
      spdlog::info("{}: {}={}", device_, control.name, control.value);
    } else {
      spdlog::warn("{}: {}={}: {}", device_, control.name, control.value,
                   Text(status));
    }
    return true;
  }

  Peripherals& peripherals_;
  const std::string device_;
  bool has_line_ = false;
  LineSettings remote_;
  LineSettings::Parity first_parity_ = LineSettings::Parity::kNone;
  LocalPty::Seen seen_;
};

// One stretch of time in which the device is there: two streams and a terminal.
class Carriage {
 public:
  struct Streams {
    std::unique_ptr<FrameStream> from;  // null: the device makes nothing
    std::unique_ptr<FrameOutput> to;    // null: it takes nothing
  };
  Carriage(Streams streams, LocalPty& pty, SettingsCarrier& settings,
           Clock& clock, const WakeFd& stop)
      : from_(std::move(streams.from)),
        to_(std::move(streams.to)),
        pty_(pty),
        settings_(settings),
        clock_(clock),
        stop_(stop) {}

  // Until the stop (OK), the device's going (UNAVAILABLE), or the end of its
  // stream (OUT_OF_RANGE, or why).
  absl::Status Run();

 private:
  bool Stopped() const {
    return over_.load(std::memory_order_acquire) || stop_.WaitMs(0);
  }
  absl::Status CarryIn();
  void Deliver(std::span<const uint8_t> bytes);
  void CarryOut();
  bool AwaitProgram();
  bool CarryWritten();
  bool PutAll(std::span<const uint8_t> bytes);
  void FollowSettings();

  const std::unique_ptr<FrameStream> from_;
  const std::unique_ptr<FrameOutput> to_;
  LocalPty& pty_;
  SettingsCarrier& settings_;
  Clock& clock_;
  const WakeFd& stop_;
  WakeFd in_ended_, out_ended_;
  std::atomic<bool> over_{false};  // nothing need be carried any more
  absl::Status put_status_;        // of CarryOut's thread, until it is joined
  uint64_t bytes_in_ = 0, bytes_thrown_ = 0, frames_in_ = 0;
  uint64_t bytes_out_ = 0, frames_out_ = 0, wakeups_ = 0;
};

absl::Status Carriage::Run() {
  std::thread out([this] { CarryOut(); });
  absl::Status status = CarryIn();
  if (!status.ok()) over_.store(true, std::memory_order_release);
  in_ended_.Signal();
  out.join();
  if (status.ok()) status = put_status_;
  if (status.ok() && to_ != nullptr) {
    to_->Finish(clock_.NowNs() + kFinishWithinNs).IgnoreError();
  }
  pty_.AwaitRead(kLastWordsMs);
  spdlog::info(
      "carried {} bytes out in {} pieces, {} in in {} ({} while nobody had it "
      "open); {} wake-ups for programs",
      bytes_out_, frames_out_, bytes_in_, frames_in_, bytes_thrown_, wakeups_);
  return status;
}

// ------------------------------------------------------------- from the device

absl::Status Carriage::CarryIn() {
  for (;;) {
    if (from_ == nullptr) {
      // What is put waits by itself while the device is away.
      if (out_ended_.WaitMs(-1)) return absl::OkStatus();
      continue;
    }
    absl::StatusOr<FrameView> view = from_->Next(clock_.NowNs() + kLookEveryNs);
    if (view.ok()) {
      ++frames_in_;
      bytes_in_ += view->data().size();
      Deliver(view->data());
      continue;
    }
    if (absl::IsCancelled(view.status()))
      return absl::OkStatus();  // CarryOut has ended
    if (!absl::IsDeadlineExceeded(view.status())) return view.status();
    // The link may be lost as well; then it comes back by itself.
    if (from_->connected() && !from_->device_present()) {
      return absl::UnavailableError("the device has gone");
    }
  }
}

void Carriage::Deliver(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    // As on a serial port that no program has open.
    if (!pty_.IsOpen()) {
      bytes_thrown_ += bytes.size();
      return;
    }
    const auto written = pty_.Write(bytes);
    if (!written.ok()) return;
    bytes = bytes.subspan(*written);
    if (bytes.empty() || *written > 0) continue;
    // The program does not read: so the device waits, and looks now and then
    // whether the program still has it open.
    pollfd waits[] = {{pty_.fd(), POLLOUT, 0}, {stop_.get(), POLLIN, 0}};
    ::poll(waits, 2, kRetryEveryMs);
    if (Stopped()) return;
  }
}

// --------------------------------------------------------------- to the device

void Carriage::CarryOut() {
  while (AwaitProgram() && CarryWritten()) {
  }
  // Told to end: what was written before goes first.
  if (put_status_.ok() && !over_.load(std::memory_order_acquire))
    CarryWritten();
  out_ended_.Signal();
  if (from_ != nullptr) from_->Cancel();
}

// Until a program has written or changed the settings; false at the end.
bool Carriage::AwaitProgram() {
  for (;;) {
    pollfd terminal{pty_.fd(), POLLIN | POLLPRI, 0};
    ::poll(&terminal, 1, 0);
    if ((terminal.revents & (POLLIN | POLLPRI)) != 0) return !Stopped();
    const bool is_open = (terminal.revents & POLLHUP) == 0;
    pollfd waits[] = {{stop_.get(), POLLIN, 0},
                      {in_ended_.get(), POLLIN, 0},
                      {is_open ? pty_.fd() : -1, POLLIN | POLLPRI, 0},
                      {is_open ? -1 : pty_.opens_fd(), POLLIN, 0}};
    const bool is_told = is_open ? pty_.tells_changes() : pty_.opens_fd() >= 0;
    if (::poll(waits, 4, is_told ? -1 : kFollowEveryMs) < 0) continue;
    ++wakeups_;
    if (waits[0].revents != 0 || waits[1].revents != 0) return false;
    if (waits[3].revents != 0) pty_.ClearOpens();
    if (is_open && !is_told) FollowSettings();
  }
}

// All that is there now; false if it cannot be.
bool Carriage::CarryWritten() {
  for (;;) {
    const auto bytes = pty_.Read();
    // Settings that changed before it was written go first.
    FollowSettings();
    if (!bytes.ok()) {
      put_status_ = bytes.status();
      return false;
    }
    if (bytes->empty()) return true;
    if (!PutAll(*bytes)) return false;
  }
}

void Carriage::FollowSettings() {
  const auto seen = pty_.Look();
  if (seen.ok()) settings_.Carry(*seen);
}

bool Carriage::PutAll(std::span<const uint8_t> bytes) {
  if (to_ == nullptr) return true;  // nobody listens there
  while (!bytes.empty()) {
    Frame frame;
    frame.data =
        bytes.first(std::min<size_t>(bytes.size(), to_->max_frame_bytes()));
    frame.capture_ns = clock_.NowNs();
    const absl::Status status =
        to_->Put(frame, frame.capture_ns + kLookEveryNs);
    if (status.ok()) {
      ++frames_out_;
      bytes_out_ += frame.data.size();
      bytes = bytes.subspan(frame.data.size());
    } else if (!absl::IsDeadlineExceeded(status)) {
      put_status_ = status;
      return false;
    } else if (Stopped()) {
      return false;
    }
  }
  return true;
}

// ------------------------------------------------ one stretch after another

class Attachment {
 public:
  Attachment(Peripherals& peripherals, Clock& clock,
             const AttachSerialOptions& options, const WakeFd& stop,
             const std::function<void(const std::string&)>& ready)
      : peripherals_(peripherals),
        clock_(clock),
        options_(options),
        stop_(stop),
        ready_(ready) {}

  absl::Status Run() {
    for (bool has_worked = false;;) {
      is_running_ = false;
      const absl::Status status = RunOnce();
      if (stop_.WaitMs(0) || status.ok() || absl::IsOutOfRange(status))
        return absl::OkStatus();
      has_worked |= is_running_;
      // At first every error is the user's to see; later the device, or its
      // server, may come back, unless the stream itself has ended.
      const bool may_come_back = absl::IsUnavailable(status) ||
                                 absl::IsFailedPrecondition(status) ||
                                 absl::IsNotFound(status);
      if (!has_worked || (is_running_ && !may_come_back)) return status;
      Say(status);
      if (stop_.WaitMs(kRetryEveryMs)) return absl::OkStatus();
    }
  }

 private:
  absl::Status RunOnce();
  absl::StatusOr<Carriage::Streams> Open();
  // Each new reason why there is no terminal, once.
  void Say(const absl::Status& status) {
    if (Text(status) == said_) return;
    said_ = Text(status);
    spdlog::warn("{}: no terminal: {}", options_.device, said_);
  }

  Peripherals& peripherals_;
  Clock& clock_;
  const AttachSerialOptions& options_;
  const WakeFd& stop_;
  const std::function<void(const std::string&)>& ready_;
  bool is_running_ = false;  // there was a terminal, this time
  std::string said_;
};

absl::StatusOr<Carriage::Streams> Attachment::Open() {
  const auto info = peripherals_.Info(options_.device);
  if (!info.ok()) return info.status();
  if (!info->present()) return absl::UnavailableError(info->why_absent());
  if (info->disk()) return absl::UnimplementedError("it is a disk");
  StreamOptions stream;
  stream.format = kByteStream;
  stream.slots = stream.queue_frames = kSlots;
  stream.exclusive = !options_.shared;
  stream.policy = options_.shared ? Policy::kDropOldest : Policy::kBlock;
  Carriage::Streams streams;
  if (info->source_formats_size() > 0) {
    auto from = peripherals_.OpenSource(options_.device, stream);
    if (!from.ok()) return from.status();
    streams.from = *std::move(from);
  }
  if (info->sink_formats_size() > 0) {
    auto to = peripherals_.OpenSink(options_.device, stream);
    if (!to.ok()) return to.status();
    streams.to = *std::move(to);
  }
  for (const auto& control : options_.controls) {
    const auto status =
        peripherals_.SetControl(options_.device, control.first, control.second);
    if (!status.ok()) return status;
  }
  if (streams.from == nullptr && streams.to == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat(options_.device, " carries no bytes"));
  }
  return streams;
}

absl::Status Attachment::RunOnce() {
  auto streams = Open();
  if (!streams.ok()) return streams.status();
  SettingsCarrier settings(peripherals_, options_.device);
  const LineSettings remote = settings.Learn().value_or(LineSettings());
  auto pty = LocalPty::Make(options_.link, remote);
  if (!pty.ok()) return pty.status();
  const auto seen = (*pty)->Look();
  if (!seen.ok()) return seen.status();
  settings.SetBaseline(*seen);
  is_running_ = true;
  said_.clear();
  ready_((*pty)->path());
  Carriage carriage(*std::move(streams), **pty, settings, clock_, stop_);
  return carriage.Run();
}

}  // namespace

absl::Status AttachSerial(
    Peripherals& peripherals, Clock& clock, const AttachSerialOptions& options,
    const WakeFd& stop,
    const std::function<void(const std::string& path)>& ready) {
  return Attachment(peripherals, clock, options, stop, ready).Run();
}

}  // namespace tripwire::periph::tools

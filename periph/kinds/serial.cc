// SPDX-License-Identifier: BSD-3-Clause
// tty: serial lines and ptys, with their settings as controls.
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "periph/device/byte_sink.h"
#include "periph/device/byte_source.h"
#include "periph/device/bytes.h"
#include "periph/device/device.h"
#include "periph/device/line_settings.h"
#include "periph/device/serial_line.h"

namespace tripwire::periph {
namespace {

constexpr char kGrammar[] =
    "tty:PATH[,speed=BAUD][,bits=5..8][,parity=none|even|odd|mark|space][,stop="
    "1|2]"
    "[,flow=none|rtscts|xonxoff][,dtr=0|1][,rts=0|1][,frame=BYTES]";
constexpr uint64_t kLineFrameBytes =
    4096;  // what the kernel keeps for a reader
constexpr int kLongestBreakMs = 10'000;

// A line and how it is to be set, in use or not. Its users share one open
// descriptor. Thread-safe; outlives the device in its users' hands.
class LinePort {
 public:
  LinePort(std::string path, LineSettings settings, std::map<int, bool> modem)
      : path_(std::move(path)), settings_(settings), modem_(std::move(modem)) {}

  const std::string& path() const { return path_; }
  std::shared_ptr<SerialLine> line() {
    const std::lock_guard lock(mutex_);
    return line_.lock();
  }
  absl::StatusOr<std::shared_ptr<SerialLine>> Use();
  // Gives back what Use gave. The lock is held while the last user closes the
  // line, so that the next to open it does not find it busy.
  void Release(std::shared_ptr<SerialLine> line) {
    const std::lock_guard lock(mutex_);
    line.reset();
  }
  // The line has hung up: the next user opens it anew, although others still
  // hold this.
  void Abandon(const std::shared_ptr<SerialLine>& line) {
    const std::lock_guard lock(mutex_);
    if (line_.lock() != line) return;
    line->Abandon();
    line_.reset();
  }

  std::vector<Control> Controls();
  absl::Status SetControl(const std::string& name, const std::string& value);

 private:
  absl::Status SetModem(const ModemLine& wire, const std::string& value);
  absl::Status SendBreak(const std::string& value);

  const std::string path_;
  std::mutex mutex_;
  LineSettings settings_;
  std::map<int, bool> modem_;  // outputs that were set, by TIOCM bit
  std::weak_ptr<SerialLine> line_;
};

absl::StatusOr<std::shared_ptr<SerialLine>> LinePort::Use() {
  const std::lock_guard lock(mutex_);
  if (auto open = line_.lock(); open != nullptr) return open;
  auto opened = SerialLine::Open(path_, settings_);
  if (!opened.ok()) return opened.status();
  std::shared_ptr<SerialLine> line = *std::move(opened);
  for (const auto& wire : modem_)
    line->SetModemBit(wire.first, wire.second).IgnoreError();
  line_ = line;
  return line;
}

std::vector<Control> LinePort::Controls() {
  const std::lock_guard lock(mutex_);
  std::vector<Control> controls = LineControls(settings_);
  const bool is_pty = IsPty(path_);
  if (is_pty) {
    for (Control& control : controls) {
      control.help +=
          " (a pty: it carries whole bytes at any speed, whatever this says)";
    }
  }
  const std::shared_ptr<SerialLine> line = line_.lock();
  controls.push_back({.name = "break",
                      .help = is_pty
                                  ? "cannot be sent: a pty has no line to break"
                                  : "sends a break of so many milliseconds",
                      .writable = !is_pty});
  const std::optional<int> bits =
      line != nullptr ? line->modem_bits() : std::nullopt;
  for (const ModemLine& wire : ModemLines()) {
    Control control{.name = wire.name,
                    .help = wire.help,
                    .writable = wire.writable && !is_pty};
    if (wire.writable) control.choices = {"0", "1"};
    if (bits) {
      control.value = absl::StrCat((*bits & wire.bit) != 0 ? 1 : 0);
    } else if (is_pty) {
      absl::StrAppend(&control.help, " (a pty has no such wire)");
    } else if (line == nullptr) {
      absl::StrAppend(&control.help, " (known while the line is in use)");
    } else {
      absl::StrAppend(&control.help, " (this line has no such wire)");
    }
    controls.push_back(std::move(control));
  }
  if (line != nullptr) {
    for (Control& counter : line->Counters())
      controls.push_back(std::move(counter));
  }
  return controls;
}

absl::Status LinePort::SetControl(const std::string& name,
                                  const std::string& value) {
  if (name == "break") return SendBreak(value);
  for (const ModemLine& wire : ModemLines()) {
    if (name == wire.name) return SetModem(wire, value);
  }
  const std::lock_guard lock(mutex_);
  LineSettings settings = settings_;
  if (auto status = SetLineControl(settings, name, value); !status.ok())
    return status;
  if (const std::shared_ptr<SerialLine> line = line_.lock(); line != nullptr) {
    if (auto status = line->Set(settings); !status.ok()) return status;
  }
  settings_ = settings;
  return absl::OkStatus();
}

absl::Status LinePort::SetModem(const ModemLine& wire,
                                const std::string& value) {
  if (!wire.writable) {
    return absl::InvalidArgumentError(
        absl::StrCat(wire.name, " is an input: the far end sets it"));
  }
  if (value != "0" && value != "1") {
    return absl::InvalidArgumentError(
        absl::StrCat(wire.name, "=", value, ": it is 0 or 1"));
  }
  if (IsPty(path_)) {
    return absl::UnimplementedError(
        absl::StrCat(path_, ": a pty has no modem lines"));
  }
  const std::lock_guard lock(mutex_);
  if (const std::shared_ptr<SerialLine> line = line_.lock(); line != nullptr) {
    if (auto status = line->SetModemBit(wire.bit, value == "1"); !status.ok())
      return status;
  }
  modem_[wire.bit] = value == "1";
  return absl::OkStatus();
}

absl::Status LinePort::SendBreak(const std::string& value) {
  int milliseconds = 0;
  if (!absl::SimpleAtoi(value, &milliseconds) || milliseconds <= 0 ||
      milliseconds > kLongestBreakMs) {
    return absl::InvalidArgumentError(absl::StrCat(
        "break=", value, ": it is 1 to ", kLongestBreakMs, " milliseconds"));
  }
  if (IsPty(path_)) {
    return absl::UnimplementedError(
        absl::StrCat(path_, ": a pty cannot send a break"));
  }
  std::shared_ptr<SerialLine> line = this->line();
  if (line == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        path_, ": nobody has it open, so there is nothing to break"));
  }
  const absl::Status status = line->Break(milliseconds);
  Release(std::move(line));
  return status;
}

// One user's share of an open line.
class LineUse {
 public:
  LineUse(std::shared_ptr<LinePort> port, std::shared_ptr<SerialLine> line)
      : port_(std::move(port)), line_(std::move(line)) {}
  ~LineUse() { port_->Release(std::move(line_)); }
  LineUse(const LineUse&) = delete;
  SerialLine& line() const { return *line_; }
  absl::Status HungUp(const std::string& reason) const {
    port_->Abandon(line_);
    return absl::UnavailableError(absl::StrCat(port_->path(), ": ", reason));
  }

 private:
  const std::shared_ptr<LinePort> port_;
  std::shared_ptr<SerialLine> line_;
};

class LineInput final : public ByteInput {
 public:
  explicit LineInput(std::unique_ptr<LineUse> use)
      : use_(std::move(use)), watch_(use_->line().path(), use_->line().fd()) {}
  int fd() const override { return use_->line().fd(); }
  Piece Read(std::span<uint8_t> into) override {
    Piece piece = ReadPiece(fd(), into, use_->line().path());
    // A terminal's end is that its far end has gone.
    if (piece.what == What::kEnd) {
      piece.why = use_->HungUp(piece.why.ok() || absl::IsUnavailable(piece.why)
                                   ? "hung up"
                                   : std::string(piece.why.message()));
    }
    return piece;
  }
  uint64_t overrun() override { return use_->line().overrun(); }
  int news_fd() const override { return watch_.fd(); }
  absl::Status Check() override {
    if (watch_.StillThere()) return absl::OkStatus();
    return use_->HungUp("removed");
  }

 private:
  const std::unique_ptr<LineUse> use_;
  const PathWatch watch_;
};

class LineOutput final : public ByteOutput {
 public:
  explicit LineOutput(std::unique_ptr<LineUse> use) : use_(std::move(use)) {}
  int fd() const override { return use_->line().fd(); }
  absl::Status Failed(int) override { return use_->HungUp("hung up"); }
  absl::StatusOr<bool> Done() override {
    absl::StatusOr<bool> done = use_->line().Drained();
    return done.ok() ? done : use_->HungUp("hung up");
  }

 private:
  const std::unique_ptr<LineUse> use_;
};

class Serial final : public Device {
 public:
  Serial(std::shared_ptr<LinePort> port, uint64_t frame_bytes, Clock& clock)
      : port_(std::move(port)), frame_bytes_(frame_bytes), clock_(clock) {}

  DeviceInfo Describe() override {
    const std::string& path = port_->path();
    DeviceInfo info;
    info.source_formats = {kByteStream};
    info.sink_formats = {kByteStream};
    info.description =
        absl::StrCat(IsPty(path) ? "pty, " : "serial line, ", path);
    if (::access(path.c_str(), R_OK | W_OK) != 0) {
      info.present = false;
      info.why_absent = std::string(DeviceError(errno, path).message());
    }
    return info;
  }
  absl::StatusOr<std::unique_ptr<Source>> StartSource(
      const std::string& format, FrameTaker& taker) override {
    if (auto status = CheckByteFormat(format); !status.ok()) return status;
    auto line = port_->Use();
    if (!line.ok()) return line.status();
    return std::make_unique<ByteSource>(
        std::make_unique<LineInput>(
            std::make_unique<LineUse>(port_, *std::move(line))),
        taker, clock_, ByteSource::Options{.frame_bytes = frame_bytes_});
  }
  absl::StatusOr<std::unique_ptr<Sink>> StartSink(
      const std::string& format) override {
    if (auto status = CheckByteFormat(format); !status.ok()) return status;
    auto line = port_->Use();
    if (!line.ok()) return line.status();
    return std::make_unique<ByteSink>(std::make_unique<LineOutput>(
        std::make_unique<LineUse>(port_, *std::move(line))));
  }
  absl::StatusOr<std::vector<Control>> Controls() override {
    return port_->Controls();
  }
  absl::Status SetControl(const std::string& name,
                          const std::string& value) override {
    return port_->SetControl(name, value);
  }

 private:
  const std::shared_ptr<LinePort> port_;
  const uint64_t frame_bytes_;
  Clock& clock_;
};

absl::Status SetOption(const std::string& name, const std::string& value,
                       LineSettings& settings, std::map<int, bool>& modem,
                       uint64_t& frame_bytes) {
  if (name == "frame") {
    auto bytes = ParseFrameBytes(value);
    if (!bytes.ok()) return bytes.status();
    frame_bytes = *bytes;
    return absl::OkStatus();
  }
  for (const ModemLine& wire : ModemLines()) {
    if (name != wire.name || !wire.writable || (value != "0" && value != "1"))
      continue;
    modem[wire.bit] = value == "1";
    return absl::OkStatus();
  }
  absl::Status status = SetLineControl(settings, name, value);
  if (!absl::IsNotFound(status)) return status;
  return absl::InvalidArgumentError(absl::StrCat("tty: no option '", name,
                                                 value.empty() ? "" : "=",
                                                 value, "'; it is ", kGrammar));
}

absl::StatusOr<std::unique_ptr<Device>> Make(const std::string& argument,
                                             Clock& clock) {
  auto spec = ParsePathSpec("tty", argument);
  if (!spec.ok()) return spec.status();
  LineSettings settings;
  std::map<int, bool> modem;
  uint64_t frame_bytes = kLineFrameBytes;
  for (const auto& option : spec->options) {
    auto status =
        SetOption(option.first, option.second, settings, modem, frame_bytes);
    if (!status.ok()) return status;
  }
  struct stat st;
  if (::stat(spec->path.c_str(), &st) == 0 && !S_ISCHR(st.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec->path, ": not a terminal"));
  }
  return std::make_unique<Serial>(
      std::make_shared<LinePort>(spec->path, settings, std::move(modem)),
      frame_bytes, clock);
}

const RegisterKind kSerial{
    {"tty", kGrammar,
     "a serial line or a pty, both ways, with speed, parity, modem lines "
     "and break as controls",
     Make}};

}  // namespace
}  // namespace tripwire::periph

// SPDX-License-Identifier: BSD-3-Clause
// chr: character devices and FIFOs, read and written as they are.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/device/byte_sink.h"
#include "periph/device/byte_source.h"
#include "periph/device/bytes.h"
#include "periph/device/device.h"
#include "periph/device/kernel_log.h"

namespace tripwire::periph {
namespace {

constexpr char kGrammar[] =
    "chr:PATH[,ro|wo][,frame=BYTES][,eof][,from=now][,records]";

struct Settings {
  std::string path;
  bool reads = true, writes = true;
  uint64_t frame_bytes = 0;  // 0: what suits the device
  bool eof = false;          // a FIFO's stream ends with its last writer
  bool from_now = false;     // of the kernel's log: only what comes
  bool records = false;      // it is a log in the kernel's form
};

// What is known of character devices by their numbers (the kernel's
// Documentation/admin-guide/devices.txt). Devices are never opened to find out:
// that alone may do something (start a watchdog, rewind a tape).
struct Known {
  unsigned major, minor;
  const char* what;
  bool reads, writes;
  uint64_t frame_bytes;
};
constexpr unsigned kMemory = 1, kMisc = 10;
constexpr unsigned kKernelLogMinor = 11;
constexpr Known kKnown[] = {
    {kMemory, 3, "nothing: it is always at its end and takes all", true, true,
     65536},
    {kMemory, 5, "zeros without end", true, true, 65536},
    {kMemory, 7, "a device that is always full", true, true, 65536},
    {kMemory, 8, "the kernel's random numbers", true, true, 4096},
    {kMemory, 9, "the kernel's random numbers", true, true, 4096},
    {kMemory, kKernelLogMinor, "the kernel's log, a record a frame", true, true,
     kKernelRecordBytes},
    // Small frames: its driver fills a whole one before it answers.
    {kMisc, 183, "hardware random generator", true, false, 512},
};

const Known* Lookup(const struct stat& st) {
  if (!S_ISCHR(st.st_mode)) return nullptr;
  for (const Known& known : kKnown) {
    if (known.major == major(st.st_rdev) && known.minor == minor(st.st_rdev))
      return &known;
  }
  return nullptr;
}

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// For people; what the kernel calls it where nothing better is known.
std::string WhatItIs(const struct stat& st) {
  if (S_ISFIFO(st.st_mode)) return "a FIFO";
  const unsigned major_number = major(st.st_rdev),
                 minor_number = minor(st.st_rdev);
  if (const Known* known = Lookup(st); known != nullptr) {
    if (known->major != kMisc) return known->what;
    const std::string driver =
        FirstLine("/sys/class/misc/hw_random/rng_current");
    return driver.empty() ? known->what
                          : absl::StrCat(known->what, " (", driver, ")");
  }
  const std::string directory =
      absl::StrCat("/sys/dev/char/", major_number, ":", minor_number);
  std::string product = FirstLine(directory + "/device/name");
  if (product.empty()) product = FirstLine(directory + "/device/product");
  return absl::StrCat("character device ", major_number, ":", minor_number,
                      product.empty() ? "" : absl::StrCat(" (", product, ")"));
}

// OK if it is a character device or a FIFO; UNAVAILABLE if it is not there.
absl::Status Look(const std::string& path, struct stat& st) {
  if (::stat(path.c_str(), &st) != 0) return DeviceError(errno, path);
  if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)) return absl::OkStatus();
  const char* what = S_ISREG(st.st_mode)
                         ? "a regular file (an image of a disk is blk:PATH)"
                     : S_ISDIR(st.st_mode) ? "a directory"
                     : S_ISBLK(st.st_mode) ? "a block device (that is blk:PATH)"
                                           : "something else";
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": not a character device or FIFO, but ", what));
}

class CharacterInput final : public ByteInput {
 public:
  CharacterInput(UniqueFd fd, std::string path, bool is_records)
      : path_(std::move(path)), fd_(std::move(fd)), watch_(path_, fd_.get()) {
    if (!is_records) return;
    log_ = std::make_unique<KernelLogInput>(
        fd_.get(),
        [fd = fd_.get()](std::span<uint8_t> into) {
          return ::read(fd, into.data(), into.size());
        },
        path_);
  }
  int fd() const override { return fd_.get(); }
  Piece Read(std::span<uint8_t> into) override {
    return log_ != nullptr ? log_->Read(into)
                           : ReadPiece(fd_.get(), into, path_);
  }
  uint64_t overrun() override { return log_ != nullptr ? log_->overrun() : 0; }
  int news_fd() const override { return watch_.fd(); }
  absl::Status Check() override {
    if (watch_.StillThere()) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(path_, ": removed"));
  }

 private:
  const std::string path_;
  const UniqueFd fd_;
  const PathWatch watch_;
  std::unique_ptr<KernelLogInput> log_;
};

class CharacterOutput final : public ByteOutput {
 public:
  CharacterOutput(UniqueFd fd, std::string path)
      : fd_(std::move(fd)), path_(std::move(path)) {}
  int fd() const override { return fd_.get(); }
  absl::Status Failed(int error) override {
    if (error == EPIPE) {
      return absl::UnavailableError(
          absl::StrCat(path_, ": nobody reads it any more"));
    }
    return DeviceError(error, path_);
  }

 private:
  const UniqueFd fd_;
  const std::string path_;
};

class Character final : public Device {
 public:
  Character(Settings settings, Clock& clock)
      : settings_(std::move(settings)), clock_(clock) {}

  DeviceInfo Describe() override;
  absl::StatusOr<std::unique_ptr<Source>> StartSource(
      const std::string& format, FrameTaker& taker) override;
  absl::StatusOr<std::unique_ptr<Sink>> StartSink(
      const std::string& format) override;

 private:
  bool Reads(const struct stat& st) const {
    const Known* known = Lookup(st);
    return settings_.reads && (known == nullptr || known->reads);
  }
  bool Writes(const struct stat& st) const {
    const Known* known = Lookup(st);
    return settings_.writes && (known == nullptr || known->writes);
  }
  absl::StatusOr<UniqueFd> OpenForReading(const struct stat& st) const;

  const Settings settings_;
  Clock& clock_;
};

DeviceInfo Character::Describe() {
  DeviceInfo info;
  struct stat st;
  absl::Status status = Look(settings_.path, st);
  info.description = status.ok()
                         ? absl::StrCat(WhatItIs(st), ", ", settings_.path)
                         : settings_.path;
  const bool reads = status.ok() ? Reads(st) : settings_.reads;
  const bool writes = status.ok() ? Writes(st) : settings_.writes;
  if (status.ok()) {
    const bool may_read = reads && ::access(settings_.path.c_str(), R_OK) == 0;
    const bool may_write =
        writes && ::access(settings_.path.c_str(), W_OK) == 0;
    if (!may_read && !may_write) status = DeviceError(EACCES, settings_.path);
  }
  if (reads) info.source_formats = {kByteStream};
  if (writes) info.sink_formats = {kByteStream};
  info.present = status.ok();
  if (!status.ok()) info.why_absent = std::string(status.message());
  return info;
}

absl::StatusOr<UniqueFd> Character::OpenForReading(
    const struct stat& st) const {
  constexpr int kFlags = O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  UniqueFd fd;
  if (S_ISFIFO(st.st_mode) && !settings_.eof) {
    // With a writer of our own it has no end while others come and go.
    fd.reset(::open(settings_.path.c_str(), O_RDWR | kFlags));
  }
  if (!fd) fd.reset(::open(settings_.path.c_str(), O_RDONLY | kFlags));
  if (!fd) return DeviceError(errno, settings_.path);
  if (settings_.from_now && ::lseek(fd.get(), 0, SEEK_END) < 0) {
    return DeviceError(errno, absl::StrCat(settings_.path, ": from=now"));
  }
  return fd;
}

absl::StatusOr<std::unique_ptr<Source>> Character::StartSource(
    const std::string& format, FrameTaker& taker) {
  if (auto status = CheckByteFormat(format); !status.ok()) return status;
  struct stat st;
  if (auto status = Look(settings_.path, st); !status.ok()) return status;
  if (!Reads(st)) return Device::StartSource(format, taker);
  absl::StatusOr<UniqueFd> fd = OpenForReading(st);
  if (!fd.ok()) return fd.status();
  const Known* known = Lookup(st);
  const bool is_records =
      settings_.records || (known != nullptr && known->major == kMemory &&
                            known->minor == kKernelLogMinor);
  uint64_t frame_bytes = settings_.frame_bytes;
  if (frame_bytes == 0)
    frame_bytes = known != nullptr ? known->frame_bytes : kByteFrameBytes;
  // A record is read whole or not at all.
  if (is_records) frame_bytes = std::max(frame_bytes, kKernelRecordBytes);
  return std::make_unique<ByteSource>(
      std::make_unique<CharacterInput>(*std::move(fd), settings_.path,
                                       is_records),
      taker, clock_, ByteSource::Options{.frame_bytes = frame_bytes});
}

absl::StatusOr<std::unique_ptr<Sink>> Character::StartSink(
    const std::string& format) {
  if (auto status = CheckByteFormat(format); !status.ok()) return status;
  struct stat st;
  if (auto status = Look(settings_.path, st); !status.ok()) return status;
  if (!Writes(st)) return Device::StartSink(format);
  UniqueFd fd(::open(settings_.path.c_str(),
                     O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENXIO && S_ISFIFO(st.st_mode)) {
      return absl::UnavailableError(
          absl::StrCat(settings_.path, ": nobody reads it"));
    }
    return DeviceError(errno, settings_.path);
  }
  return std::make_unique<ByteSink>(
      std::make_unique<CharacterOutput>(std::move(fd), settings_.path));
}

absl::Status SetOption(const std::string& name, const std::string& value,
                       Settings& settings) {
  if (name == "ro" && value.empty()) {
    settings.writes = false;
  } else if (name == "wo" && value.empty()) {
    settings.reads = false;
  } else if (name == "eof" && value.empty()) {
    settings.eof = true;
  } else if (name == "records" && value.empty()) {
    settings.records = true;
  } else if (name == "from" && value == "now") {
    settings.from_now = true;
  } else if (name == "frame") {
    auto bytes = ParseFrameBytes(value);
    if (!bytes.ok()) return bytes.status();
    settings.frame_bytes = *bytes;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("chr: no option '", name, value.empty() ? "" : "=", value,
                     "'; it is ", kGrammar));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Device>> Make(const std::string& argument,
                                             Clock& clock) {
  auto spec = ParsePathSpec("chr", argument);
  if (!spec.ok()) return spec.status();
  Settings settings;
  settings.path = spec->path;
  for (const auto& option : spec->options) {
    if (auto status = SetOption(option.first, option.second, settings);
        !status.ok()) {
      return status;
    }
  }
  if (!settings.reads && !settings.writes) {
    return absl::InvalidArgumentError(
        "chr: both ro and wo leave nothing to do");
  }
  struct stat st;
  if (auto status = Look(settings.path, st); absl::IsInvalidArgument(status))
    return status;
  return std::make_unique<Character>(std::move(settings), clock);
}

const RegisterKind kCharacter{{"chr", kGrammar,
                               "a character device or a FIFO, both ways: "
                               "random generators, the kernel's log",
                               Make}};

}  // namespace
}  // namespace tripwire::periph

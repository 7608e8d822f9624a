// SPDX-License-Identifier: BSD-3-Clause
#include "periph/device/serial_line.h"

#include <fcntl.h>
#include <linux/serial.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <time.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "periph/device/bytes.h"

namespace tripwire::periph {
namespace {

// Unix98 pty slaves, Documentation/admin-guide/devices.txt.
constexpr unsigned kFirstPtyMajor = 136, kLastPtyMajor = 143;

std::string ProgramOf(int pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/comm"));
  std::string name;
  std::getline(file, name);
  return name.empty() ? absl::StrCat("process ", pid)
                      : absl::StrCat(name, ", process ", pid);
}

absl::Status Busy(const std::string& path, const std::string& whose) {
  return absl::FailedPreconditionError(absl::StrCat(path, ": busy, ", whose));
}

// Whose lock on the file keeps us out, from /proc/locks: "1: FLOCK ADVISORY
// WRITE PID MAJOR:MINOR:INODE ...".
std::string HolderOf(int fd) {
  struct stat st;
  if (::fstat(fd, &st) != 0) return "another program has it";
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, advisory, mode, file;
    int pid = 0;
    if (!(words >> number >> kind >> advisory >> mode >> pid >> file)) continue;
    if (kind != "FLOCK" || !absl::EndsWith(file, absl::StrCat(":", st.st_ino)))
      continue;
    return absl::StrCat("locked by ", ProgramOf(pid));
  }
  return "another program has locked it";
}

// The older custom: a file that names the process, in decimal. OK if nobody
// lives who made one.
absl::Status CheckLockFile(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  std::ifstream file(absl::StrCat("/var/lock/LCK..", name));
  int pid = 0;
  if (!(file >> pid) || pid <= 0) return absl::OkStatus();
  if (::kill(pid, 0) != 0 && errno == ESRCH) return absl::OkStatus();
  return Busy(path,
              absl::StrCat("by its lock file it is ", ProgramOf(pid), "'s"));
}

std::optional<serial_icounter_struct> CountersOf(int fd) {
  serial_icounter_struct counters = {};
  if (::ioctl(fd, TIOCGICOUNT, &counters) != 0) return std::nullopt;
  return counters;
}

uint64_t OverrunIn(const serial_icounter_struct& counters) {
  return static_cast<uint32_t>(counters.overrun) +
         uint64_t{static_cast<uint32_t>(counters.buf_overrun)};
}

// True if a driver that was asked for `wanted` and has `have` does it: hardware
// makes its speed by dividing, so that it is seldom exact; 3 % is what
// receivers bear.
bool IsSatisfied(const LineSettings& wanted, const LineSettings& have) {
  LineSettings same = have;
  const uint64_t difference = wanted.speed > have.speed
                                  ? wanted.speed - have.speed
                                  : have.speed - wanted.speed;
  if (difference * 100 <= uint64_t{wanted.speed} * 3) same.speed = wanted.speed;
  return same == wanted;
}

}  // namespace

const std::vector<ModemLine>& ModemLines() {
  static const std::vector<ModemLine> lines = {
      {"dtr", TIOCM_DTR, true, "data terminal ready, an output"},
      {"rts", TIOCM_RTS, true, "request to send, an output"},
      {"cts", TIOCM_CTS, false, "clear to send, an input"},
      {"dsr", TIOCM_DSR, false, "data set ready, an input"},
      {"cd", TIOCM_CD, false, "carrier detect, an input"},
      {"ri", TIOCM_RI, false, "ring indicator, an input"}};
  return lines;
}

bool IsPty(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0 && S_ISCHR(st.st_mode) &&
         major(st.st_rdev) >= kFirstPtyMajor &&
         major(st.st_rdev) <= kLastPtyMajor;
}

absl::StatusOr<std::unique_ptr<SerialLine>> SerialLine::Open(
    const std::string& path, const LineSettings& settings) {
  if (auto status = CheckLockFile(path); !status.ok()) return status;
  // Without O_NONBLOCK it would wait for a carrier.
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!fd) {
    if (errno == EBUSY) return Busy(path, "another program has it to itself");
    return DeviceError(errno, path);
  }
  auto line = std::unique_ptr<SerialLine>(new SerialLine(path, std::move(fd)));
  absl::StatusOr<LineMode> mode = GetLineMode(line->fd());
  if (!mode.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": not a terminal"));
  }
  if (auto status = line->Lock(); !status.ok()) return status;
  line->before_ = *mode;
  MakeRaw(*mode);
  if (auto status = SetLineMode(line->fd(), *mode); !status.ok()) return status;
  if (auto status = line->Set(settings); !status.ok()) return status;
  // What came before anybody listened is nobody's.
  ::ioctl(line->fd(), TCFLSH, TCIFLUSH);
  if (const auto counters = CountersOf(line->fd())) {
    line->is_counted_ = true;
    line->overrun_before_ = OverrunIn(*counters);
  }
  return line;
}

absl::Status SerialLine::Lock() {
  if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Busy(path_, HolderOf(fd_.get()));
    return DeviceError(errno, absl::StrCat(path_, ": locking"));
  }
  // Root opens what is another's; it must ask.
  int is_exclusive = 0;
  if (::ioctl(fd_.get(), TIOCGEXCL, &is_exclusive) == 0 && is_exclusive != 0) {
    return Busy(path_, "another program has it to itself");
  }
  // A pty would keep that if we were killed, as long as its far end is open.
  if (!IsPty(path_)) ::ioctl(fd_.get(), TIOCEXCL);
  is_locked_ = true;
  return absl::OkStatus();
}

SerialLine::~SerialLine() {
  if (!is_locked_) return;
  // Else closing may wait for the far end to let it go on.
  ::ioctl(fd_.get(), TCFLSH, TCOFLUSH);
  if (before_) SetLineMode(fd_.get(), *before_).IgnoreError();
  if (!IsPty(path_)) ::ioctl(fd_.get(), TIOCNXCL);
}

void SerialLine::Abandon() { ::flock(fd_.get(), LOCK_UN); }

absl::Status SerialLine::Set(const LineSettings& settings) {
  absl::StatusOr<LineMode> before = GetLineMode(fd_.get());
  if (!before.ok()) return before.status();
  LineMode mode = *before;
  Apply(settings, mode);
  if (auto status = SetLineMode(fd_.get(), mode); !status.ok()) return status;
  // A pty carries whole bytes at any speed: the kernel takes and forgets the
  // rest.
  if (IsPty(path_)) return absl::OkStatus();
  const absl::StatusOr<LineMode> after = GetLineMode(fd_.get());
  if (!after.ok()) return after.status();
  if (IsSatisfied(settings, SettingsOf(*after))) return absl::OkStatus();
  SetLineMode(fd_.get(), *before).IgnoreError();
  return absl::InvalidArgumentError(
      absl::StrCat(path_, ": its hardware cannot do that"));
}

std::optional<int> SerialLine::modem_bits() const {
  int bits = 0;
  if (::ioctl(fd_.get(), TIOCMGET, &bits) != 0) return std::nullopt;
  return bits;
}

absl::Status SerialLine::SetModemBit(int bit, bool is_on) {
  if (::ioctl(fd_.get(), is_on ? TIOCMBIS : TIOCMBIC, &bit) == 0)
    return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat(path_, ": it has no modem lines"));
}

absl::Status SerialLine::Break(int milliseconds) {
  if (::ioctl(fd_.get(), TIOCSBRK, 0) != 0) {
    return absl::UnimplementedError(
        absl::StrCat(path_, ": it cannot send a break"));
  }
  timespec left{milliseconds / 1000, (milliseconds % 1000) * 1'000'000L};
  while (::nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
  ::ioctl(fd_.get(), TIOCCBRK, 0);
  return absl::OkStatus();
}

uint64_t SerialLine::overrun() const {
  if (!is_counted_) return 0;
  const auto counters = CountersOf(fd_.get());
  if (!counters) return 0;
  const uint64_t now = OverrunIn(*counters);
  return now > overrun_before_ ? now - overrun_before_ : 0;
}

std::vector<Control> SerialLine::Counters() const {
  const auto counters = CountersOf(fd_.get());
  if (!counters) return {};
  const auto counter = [](const char* name, int value, const char* help) {
    return Control{.name = name,
                   .value = absl::StrCat(static_cast<uint32_t>(value)),
                   .help = absl::StrCat(help, ", since the driver was loaded"),
                   .writable = false};
  };
  return {
      counter("received", counters->rx, "characters that came"),
      counter("sent", counters->tx, "characters that went"),
      counter("overruns", counters->overrun, "times the hardware had no room"),
      counter("buffer_overruns", counters->buf_overrun,
              "times the driver had no room"),
      counter("parity_errors", counters->parity,
              "characters with a wrong parity bit"),
      counter("framing_errors", counters->frame,
              "characters without a stop bit"),
      counter("breaks", counters->brk, "breaks that came")};
}

absl::StatusOr<bool> SerialLine::Drained() const {
  int queued = 0;
  if (::ioctl(fd_.get(), TIOCOUTQ, &queued) != 0)
    return DeviceError(errno, path_);
  if (queued > 0) return false;
  // The driver has let it go; what its hardware still holds is a few
  // characters.
  if (::tcdrain(fd_.get()) != 0 && errno != EINTR)
    return DeviceError(errno, path_);
  return true;
}

}  // namespace tripwire::periph

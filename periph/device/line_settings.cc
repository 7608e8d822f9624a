// SPDX-License-Identifier: BSD-3-Clause
#include "periph/device/line_settings.h"

#include <asm/termbits.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "periph/device/bytes.h"

namespace tripwire::periph {
namespace {

static_assert(sizeof(LineMode::characters) == NCCS);

using Parity = LineSettings::Parity;
using Flow = LineSettings::Flow;

constexpr std::pair<Parity, const char*> kParities[] = {
    {Parity::kNone, "none"},
    {Parity::kEven, "even"},
    {Parity::kOdd, "odd"},
    {Parity::kMark, "mark"},
    {Parity::kSpace, "space"}};
constexpr std::pair<Flow, const char*> kFlows[] = {{Flow::kNone, "none"},
                                                   {Flow::kRtsCts, "rtscts"},
                                                   {Flow::kXonXoff, "xonxoff"}};
constexpr std::pair<uint8_t, const char*> kBits[] = {
    {5, "5"}, {6, "6"}, {7, "7"}, {8, "8"}};
constexpr std::pair<uint8_t, const char*> kStops[] = {{1, "1"}, {2, "2"}};

// No UART is faster.
constexpr uint32_t kMaxSpeed = 100'000'000;

// What the kernel has a B constant for; any other speed goes by number
// (BOTHER).
constexpr std::pair<uint32_t, uint32_t> kStandardSpeeds[] = {
    {50, B50},           {75, B75},           {110, B110},
    {134, B134},         {150, B150},         {200, B200},
    {300, B300},         {600, B600},         {1200, B1200},
    {1800, B1800},       {2400, B2400},       {4800, B4800},
    {9600, B9600},       {19200, B19200},     {38400, B38400},
    {57600, B57600},     {115200, B115200},   {230400, B230400},
    {460800, B460800},   {500000, B500000},   {576000, B576000},
    {921600, B921600},   {1000000, B1000000}, {1152000, B1152000},
    {1500000, B1500000}, {2000000, B2000000}, {2500000, B2500000},
    {3000000, B3000000}, {3500000, B3500000}, {4000000, B4000000}};

template <typename T, size_t N>
std::string NameOf(const std::pair<T, const char*> (&table)[N], T value) {
  for (const auto& entry : table) {
    if (entry.first == value) return entry.second;
  }
  return "";
}

template <typename T, size_t N>
std::vector<std::string> NamesOf(const std::pair<T, const char*> (&table)[N]) {
  std::vector<std::string> names;
  for (const auto& entry : table) names.emplace_back(entry.second);
  return names;
}

template <typename T, size_t N>
absl::Status Choose(const std::pair<T, const char*> (&table)[N],
                    const std::string& name, const std::string& value,
                    T& into) {
  for (const auto& entry : table) {
    if (value != entry.second) continue;
    into = entry.first;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(name, "=", value, ": it is one of ",
                   absl::StrJoin(NamesOf(table), ", ")));
}

uint32_t SpeedOf(uint32_t flags, uint32_t by_number) {
  if ((flags & CBAUD) == BOTHER) return by_number;
  for (const auto& speed : kStandardSpeeds) {
    if (speed.second == (flags & CBAUD)) return speed.first;
  }
  return by_number;
}

void SetFlags(uint32_t& flags, uint32_t mask, uint32_t value) {
  flags = (flags & ~mask) | value;
}

}  // namespace

std::vector<Control> LineControls(const LineSettings& settings) {
  return {{.name = "speed",
           .value = absl::StrCat(settings.speed),
           .help = "bits a second, both ways; any that the hardware can do"},
          {.name = "bits",
           .value = NameOf(kBits, settings.bits),
           .help = "data bits of a character",
           .choices = NamesOf(kBits)},
          {.name = "parity",
           .value = NameOf(kParities, settings.parity),
           .help = "the parity bit of a character",
           .choices = NamesOf(kParities)},
          {.name = "stop",
           .value = NameOf(kStops, settings.stop),
           .help = "stop bits of a character",
           .choices = NamesOf(kStops)},
          {.name = "flow",
           .value = NameOf(kFlows, settings.flow),
           .help = "flow control on the line",
           .choices = NamesOf(kFlows)}};
}

absl::Status SetLineControl(LineSettings& settings, const std::string& name,
                            const std::string& value) {
  if (name == "bits") return Choose(kBits, name, value, settings.bits);
  if (name == "parity") return Choose(kParities, name, value, settings.parity);
  if (name == "stop") return Choose(kStops, name, value, settings.stop);
  if (name == "flow") return Choose(kFlows, name, value, settings.flow);
  if (name != "speed")
    return absl::NotFoundError(absl::StrCat("no line setting '", name, "'"));
  uint32_t speed = 0;
  if (!absl::SimpleAtoi(value, &speed) || speed == 0 || speed > kMaxSpeed) {
    return absl::InvalidArgumentError(
        absl::StrCat("speed=", value,
                     ": it is a number of bits a second, up to ", kMaxSpeed));
  }
  settings.speed = speed;
  return absl::OkStatus();
}

absl::StatusOr<LineMode> GetLineMode(int fd) {
  struct termios2 raw;
  if (::ioctl(fd, TCGETS2, &raw) != 0)
    return DeviceError(errno, "reading terminal settings");
  LineMode mode;
  mode.input_flags = raw.c_iflag;
  mode.output_flags = raw.c_oflag;
  mode.control_flags = raw.c_cflag;
  mode.local_flags = raw.c_lflag;
  mode.discipline = raw.c_line;
  std::copy(std::begin(raw.c_cc), std::end(raw.c_cc),
            std::begin(mode.characters));
  mode.input_speed = raw.c_ispeed;
  mode.output_speed = raw.c_ospeed;
  return mode;
}

absl::Status SetLineMode(int fd, const LineMode& mode) {
  struct termios2 raw = {};
  raw.c_iflag = mode.input_flags;
  raw.c_oflag = mode.output_flags;
  raw.c_cflag = mode.control_flags;
  raw.c_lflag = mode.local_flags;
  raw.c_line = mode.discipline;
  std::copy(std::begin(mode.characters), std::end(mode.characters),
            std::begin(raw.c_cc));
  raw.c_ispeed = mode.input_speed;
  raw.c_ospeed = mode.output_speed;
  if (::ioctl(fd, TCSETS2, &raw) != 0)
    return DeviceError(errno, "changing terminal settings");
  return absl::OkStatus();
}

LineSettings SettingsOf(const LineMode& mode) {
  LineSettings settings;
  const uint32_t flags = mode.control_flags;
  settings.speed = SpeedOf(flags, mode.output_speed);
  switch (flags & CSIZE) {
    case CS5:
      settings.bits = 5;
      break;
    case CS6:
      settings.bits = 6;
      break;
    case CS7:
      settings.bits = 7;
      break;
    default:
      settings.bits = 8;
  }
  if ((flags & PARENB) != 0) {
    const bool is_odd = (flags & PARODD) != 0;
    if ((flags & CMSPAR) != 0) {
      settings.parity = is_odd ? Parity::kMark : Parity::kSpace;
    } else {
      settings.parity = is_odd ? Parity::kOdd : Parity::kEven;
    }
  }
  settings.stop = (flags & CSTOPB) != 0 ? 2 : 1;
  if ((flags & CRTSCTS) != 0) {
    settings.flow = Flow::kRtsCts;
  } else if ((mode.input_flags & IXON) != 0) {
    settings.flow = Flow::kXonXoff;
  }
  return settings;
}

void Apply(const LineSettings& settings, LineMode& mode) {
  uint32_t& flags = mode.control_flags;
  constexpr uint32_t kSizes[] = {CS5, CS6, CS7, CS8};
  SetFlags(flags, CSIZE, kSizes[std::clamp<int>(settings.bits, 5, 8) - 5]);
  constexpr uint32_t kParityFlags[] = {
      0, PARENB, PARENB | PARODD, PARENB | PARODD | CMSPAR, PARENB | CMSPAR};
  SetFlags(flags, PARENB | PARODD | CMSPAR,
           kParityFlags[static_cast<size_t>(settings.parity)]);
  SetFlags(flags, CSTOPB, settings.stop == 2 ? CSTOPB : 0);
  SetFlags(flags, CRTSCTS, settings.flow == Flow::kRtsCts ? CRTSCTS : 0);
  SetFlags(mode.input_flags, IXON | IXOFF | IXANY,
           settings.flow == Flow::kXonXoff ? IXON | IXOFF : 0);
  // An input speed of 0 means that of the output.
  uint32_t speed_flag = BOTHER;
  for (const auto& speed : kStandardSpeeds) {
    if (speed.first == settings.speed) speed_flag = speed.second;
  }
  SetFlags(flags, CBAUD | (CBAUD << IBSHIFT),
           speed_flag | (speed_flag << IBSHIFT));
  mode.input_speed = mode.output_speed = settings.speed;
}

void MakeRaw(LineMode& mode) {
  mode.input_flags &=
      ~static_cast<uint32_t>(IGNBRK | BRKINT | PARMRK | INPCK | ISTRIP | INLCR |
                             IGNCR | ICRNL | IUCLC | IMAXBEL);
  mode.output_flags &= ~static_cast<uint32_t>(OPOST);
  mode.local_flags &=
      ~static_cast<uint32_t>(ECHO | ECHONL | ICANON | ISIG | IEXTEN | TOSTOP);
  mode.control_flags |= CREAD | CLOCAL;
  mode.characters[VMIN] = 1;
  mode.characters[VTIME] = 0;
  // XON and XOFF as every terminal has them.
  mode.characters[VSTART] = 0x11;
  mode.characters[VSTOP] = 0x13;
}

bool IsRaw(const LineMode& mode) {
  constexpr uint32_t kInput =
      ISTRIP | IUCLC | IGNCR | ICRNL | INLCR | IXON | PARMRK;
  constexpr uint32_t kLocal = ICANON | ISIG | ECHO | ECHONL;
  return (mode.input_flags & kInput) == 0 && (mode.local_flags & kLocal) == 0;
}

}  // namespace tripwire::periph

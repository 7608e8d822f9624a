// SPDX-License-Identifier: BSD-3-Clause
#include "periph/tools/session.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nic/api/open_nic.h"
#include "nic/port/port_spec.h"
#include "periph/tools/commands.h"

namespace tripwire::periph::tools {
namespace {

const std::map<std::string, Policy>& Policies() {
  static const std::map<std::string, Policy> policies = {{"block", Policy::kBlock},
                                                         {"drop-oldest", Policy::kDropOldest},
                                                         {"drop-newest", Policy::kDropNewest},
                                                         {"latest", Policy::kLatest}};
  return policies;
}

}  // namespace

void Where::AddTo(CLI::App& command) {
  command.add_option("--port", ports, kPortHelp)->type_name("PORT")->allow_extra_args(false);
}

absl::StatusOr<std::unique_ptr<Nic>> OpenNic(const Where& where) {
  if (auto status = CheckPortSpecs(where.ports); !status.ok()) {
    return BadUse(std::string(status.message()));
  }
  return tripwire::OpenNic(where.ports, PortRole::kClient, "tw-periph");
}

absl::StatusOr<Session> OpenSession(const Where& where, const std::string& device,
                                    const std::string& program) {
  auto name = ParseDeviceName(device);
  if (!name.ok()) return BadUse(std::string(name.status().message()));
  auto nic = OpenNic(where);
  if (!nic.ok()) return nic.status();
  Peripherals::Options options;
  options.node = name->node;
  options.program = program;
  auto peripherals = Peripherals::Connect(**nic, std::move(options));
  if (!peripherals.ok()) return peripherals.status();
  return Session{*std::move(nic), *std::move(peripherals), *std::move(name)};
}

void StreamFlags::AddTo(CLI::App& command) {
  command.add_option("--format", format, "what to ask for, as GStreamer caps (default: anything)")
      ->type_name("CAPS");
  command
      .add_option("--policy", policy,
                  "what becomes of frames we are too slow for: block (nothing is lost, the device "
                  "waits; needs it for ourselves), drop-oldest, drop-newest, latest")
      ->check(CLI::IsMember({"block", "drop-oldest", "drop-newest", "latest"}));
  command.add_option("--queue", queue, "frames that may wait for us at the device's side")
      ->check(CLI::Range(1u, 4096u))
      ->capture_default_str();
  command.add_option("--slots", slots, "frames that have room in our memory")
      ->check(CLI::Range(2u, 65536u))
      ->capture_default_str();
  command.add_flag("--exclusive", exclusive, "have the device for ourselves, or not at all");
}

StreamOptions StreamFlags::ToOptions() const {
  StreamOptions options;
  options.format = format;
  if (!policy.empty()) options.policy = Policies().at(policy);
  options.queue_frames = queue;
  options.slots = slots;
  options.exclusive = exclusive || options.policy == Policy::kBlock;
  return options;
}

Stopper::Stopper()
    : interrupt_([this] {
        std::lock_guard lock(mutex_);
        if (!stop_) std::_Exit(130);  // as a shell reports SIGINT
        stop_();
      }) {}

void Stopper::Set(std::function<void()> stop) {
  std::lock_guard lock(mutex_);
  stop_ = std::move(stop);
}

absl::StatusOr<bool> WriteAll(int fd, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EPIPE) return false;
    if (n < 0) return absl::ErrnoToStatus(errno, "writing failed");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace tripwire::periph::tools

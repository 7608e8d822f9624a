// SPDX-License-Identifier: BSD-3-Clause
// tw-periph attach: a remote device as a local one.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nic/base/daemon.h"
#include "periph/tools/attach_disk.h"
#include "periph/tools/attach_serial.h"
#include "periph/tools/commands.h"
#include "periph/tools/session.h"

namespace tripwire::periph::tools {
namespace {

struct AttachOptions {
  Where where;
  std::string device;
  std::string path;
  bool shared = false;
  // Of terminals.
  std::vector<std::string> settings;
  // Of disks.
  bool read_only = false, daemon = false;
  DiskCache cache = DiskCache::kThrough;
  std::vector<std::string> mount_options;
};

void PrintNow(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

absl::Status AttachFile(Session& session, const AttachOptions& options, Stopper& stopper,
                        std::optional<Daemon>& daemon) {
  if (options.path.empty()) return BadUse("a disk needs a DIRECTORY to be attached to");
  AttachDiskOptions disk;
  disk.node = session.name.node;
  disk.device = session.name.device;
  disk.directory = options.path;
  disk.read_only = options.read_only;
  disk.shared = options.shared;
  disk.cache = options.cache;
  disk.mount_options = options.mount_options;
  const UniqueFd stop(eventfd(0, EFD_CLOEXEC));
  stopper.Set([&stop] {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(stop.get(), &one, sizeof one);
  });
  const absl::Status status =
      AttachDisk(*session.nic, disk, stop.get(), [&daemon](const std::string& path) {
        PrintNow(path);
        if (daemon) daemon->Ready();
      });
  stopper.Set({});
  return status;
}

absl::Status AttachTerminal(Session& session, const AttachOptions& options, Stopper& stopper,
                            std::optional<Daemon>& daemon) {
  AttachSerialOptions serial;
  serial.device = session.name.device;
  serial.link = options.path;
  serial.shared = options.shared;
  for (const std::string& setting : options.settings) {
    const size_t equals = setting.find('=');
    serial.controls.emplace_back(setting.substr(0, equals), setting.substr(equals + 1));
  }
  const WakeFd stop;
  stopper.Set([&stop] { stop.Signal(); });
  const absl::Status status = AttachSerial(*session.peripherals, session.nic->clock(), serial, stop,
                                           [&daemon](const std::string& path) {
                                             PrintNow(path);
                                             if (daemon) daemon->Ready();
                                           });
  stopper.Set({});
  return status;
}

// As OpenSession, but for one that outlives its server's absences and is ended by a
// signal meanwhile: no call waits long.
absl::StatusOr<Session> OpenLasting(const AttachOptions& options) {
  auto name = ParseDeviceName(options.device);
  if (!name.ok()) return BadUse(std::string(name.status().message()));
  auto nic = OpenNic(options.where);
  if (!nic.ok()) return nic.status();
  Peripherals::Options wanted;
  wanted.node = name->node;
  wanted.program = "tw-periph attach";
  wanted.call_timeout_ns = 2 * kSecond;
  auto peripherals = Peripherals::Connect(**nic, std::move(wanted));
  if (!peripherals.ok()) return peripherals.status();
  return Session{*std::move(nic), *std::move(peripherals), *std::move(name)};
}

absl::Status Serve(const AttachOptions& options, std::optional<Daemon>& daemon) {
  for (const std::string& setting : options.settings) {
    const size_t equals = setting.find('=');
    if (equals == 0 || equals == setting.npos) {
      return BadUse(absl::StrCat("'", setting, "' is not NAME=VALUE"));
    }
  }
  Stopper stopper;
  auto session = OpenLasting(options);
  if (!session.ok()) return session.status();
  auto info = session->peripherals->Info(session->name.device);
  if (!info.ok()) return info.status();
  return info->disk() ? AttachFile(*session, options, stopper, daemon)
                      : AttachTerminal(*session, options, stopper, daemon);
}

absl::Status Run(const AttachOptions& options) {
  std::optional<Daemon> daemon;
  if (options.daemon) daemon = Daemon::Fork("tw-periph", 1);
  const absl::Status status = Serve(options, daemon);
  // Its parent says it, if it is still there.
  if (!status.ok() && daemon) daemon->Fail(std::string(status.message()), IsBadUse(status) ? 2 : 1);
  return daemon ? absl::OkStatus() : status;
}

const RegisterCommand kAttach("attach", [](CLI::App& app, Runner& run) {
  auto options = std::make_shared<AttachOptions>();
  CLI::App* command = app.add_subcommand(
      "attach",
      "Makes a remote device a local one until interrupted. A disk: a file in DIRECTORY, which "
      "losetup, mkfs and mount accept. A serial line, character device or program: a terminal, which "
      "any program opens. Its path is printed when it is there");
  options->where.AddTo(*command);
  command->add_option("DEVICE", options->device, "NODE:NAME")->required();
  command->add_option("PATH", options->path, "the directory for a disk's file; a symbolic link to make to a terminal");
  command->add_flag("--shared", options->shared, "let others use the device meanwhile");
  command
      ->add_option("--set", options->settings,
                   "a terminal: set a control of the device first (may be repeated)")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  command->add_flag("--read-only", options->read_only, "a disk: nothing is written");
  command
      ->add_option("--cache", options->cache,
                   "a disk: what the kernel keeps. through: what was read; back: what was written "
                   "too, until fsync; none: nothing (default: through)")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, DiskCache>{{"through", DiskCache::kThrough},
                                           {"back", DiskCache::kBack},
                                           {"none", DiskCache::kNone}}))
      ->type_name("through|back|none");
  command->add_flag("--daemon", options->daemon,
                    "a disk: go to the background once the file is there");
  command->add_option("-o", options->mount_options, "a disk: a mount option, such as allow_other")
      ->type_name("OPTION")
      ->allow_extra_args(false);
  command->callback([options, &run] { run = [options] { return Run(*options); }; });
});

}  // namespace
}  // namespace tripwire::periph::tools

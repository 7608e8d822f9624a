// SPDX-License-Identifier: BSD-3-Clause
// tw-periph info: all there is to know of one device.
#include <cstdio>
#include <memory>
#include <string>

#include "periph/tools/commands.h"
#include "periph/tools/device_text.h"
#include "periph/tools/session.h"

namespace tripwire::periph::tools {
namespace {

struct InfoOptions {
  Where where;
  std::string device;
  bool json = false;
};

absl::Status Run(const InfoOptions& options) {
  Stopper stopper;
  auto session = OpenSession(options.where, options.device, "tw-periph info");
  if (!session.ok()) return session.status();
  auto info = session->peripherals->Info(session->name.device);
  if (!info.ok()) return info.status();
  const std::string& node = session->peripherals->node();
  const std::string text = options.json ? JsonOf(node, *info) + "\n" : TextOf(node, *info);
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

const RegisterCommand kInfo("info", [](CLI::App& app, Runner& run) {
  auto options = std::make_shared<InfoOptions>();
  CLI::App* command = app.add_subcommand("info", "All there is to know of a device");
  options->where.AddTo(*command);
  command->add_flag("--json", options->json, "as one JSON object");
  command->add_option("DEVICE", options->device, "NODE:NAME")->required();
  command->callback([options, &run] { run = [options] { return Run(*options); }; });
});

}  // namespace
}  // namespace tripwire::periph::tools

// SPDX-License-Identifier: BSD-3-Clause
// tw-periph ctl: a device's knobs.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nic/api/stats/stats.h"
#include "periph/proto/messages.h"
#include "periph/tools/commands.h"
#include "periph/tools/session.h"

namespace tripwire::periph::tools {
namespace {

struct CtlOptions {
  Where where;
  std::string device;
  std::vector<std::string> settings;
  bool json = false;
};

std::string JsonOf(const Control& control) {
  using stats::JsonQuote;
  const std::string choices = absl::StrJoin(
      control.choices, ",",
      [](std::string* out, const std::string& choice) { out->append(JsonQuote(choice)); });
  return absl::StrCat("{\"name\":", JsonQuote(control.name),
                      ",\"value\":", JsonQuote(control.value),
                      ",\"writable\":", control.writable ? "true" : "false", ",\"choices\":[",
                      choices, "],\"help\":", JsonQuote(control.help), "}");
}

std::string LineOf(const Control& control) {
  std::string help = Printable(control.help);
  if (!control.choices.empty()) {
    absl::StrAppend(&help, " (", Printable(absl::StrJoin(control.choices, ", ")), ")");
  }
  return absl::StrFormat("%-20s %-16s %s%s", Printable(control.name), Printable(control.value),
                         control.writable ? "" : "[read-only] ", help);
}

absl::Status Show(Session& session, const CtlOptions& options) {
  auto controls = session.peripherals->Controls(session.name.device);
  if (!controls.ok()) return controls.status();
  for (const Control& control : *controls) {
    std::printf("%s\n", (options.json ? JsonOf(control) : LineOf(control)).c_str());
  }
  if (controls->empty() && !options.json) std::printf("the device has no controls\n");
  return absl::OkStatus();
}

absl::Status Run(const CtlOptions& options) {
  for (const std::string& setting : options.settings) {
    if (setting.find('=') == 0 || setting.find('=') == setting.npos) {
      return BadUse(absl::StrCat("'", setting, "' is not NAME=VALUE"));
    }
  }
  Stopper stopper;
  auto session = OpenSession(options.where, options.device, "tw-periph ctl");
  if (!session.ok()) return session.status();
  if (options.settings.empty()) return Show(*session, options);
  for (const std::string& setting : options.settings) {
    const size_t equals = setting.find('=');
    if (auto status = session->peripherals->SetControl(
            session->name.device, setting.substr(0, equals), setting.substr(equals + 1));
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

const RegisterCommand kCtl("ctl", [](CLI::App& app, Runner& run) {
  auto options = std::make_shared<CtlOptions>();
  CLI::App* command = app.add_subcommand("ctl", "Shows a device's controls, or sets some");
  options->where.AddTo(*command);
  command->add_flag("--json", options->json, "one JSON object per control and line");
  command->add_option("DEVICE", options->device, "NODE:NAME")->required();
  command->add_option("NAME=VALUE", options->settings, "what to set, in this order");
  command->callback([options, &run] { run = [options] { return Run(*options); }; });
});

}  // namespace
}  // namespace tripwire::periph::tools

// SPDX-License-Identifier: BSD-3-Clause
// A device's knobs.
#include <spdlog/spdlog.h>

#include <utility>

#include "periph/proto/messages.h"
#include "periph/service/control_service.h"

namespace tripwire::periph {
namespace {

constexpr size_t kMaxTextBytes = 4096;

}  // namespace

void ControlService::Controls(ServedCall call) {
  auto device = registry_.Find(call.request().controls().device(), call.asker());
  if (!device.ok()) return call.Answer(device.status(), false);
  auto controls = (*device)->device().Controls();
  if (!controls.ok()) return call.Answer(controls.status(), false);
  proto::Reply reply;
  proto::ControlsReply& told = *reply.mutable_controls();
  for (const Control& control : *controls) {
    proto::Control& one = *told.add_controls();
    one.set_name(Printable(control.name, kMaxTextBytes));
    one.set_value(Printable(control.value, kMaxTextBytes));
    one.set_help(Printable(control.help, kMaxTextBytes));
    for (const std::string& choice : control.choices) {
      one.add_choices(Printable(choice, kMaxTextBytes));
    }
    one.set_writable(control.writable && !(*device)->access().read_only);
  }
  call.Answer(reply, {}, 0, false);
}

void ControlService::SetControl(ServedCall call) {
  const proto::SetControlRequest& wanted = call.request().set_control();
  auto device = registry_.Find(wanted.device(), call.asker());
  if (!device.ok()) return call.Answer(device.status());
  absl::Status status = (*device)->MayControl(call.asker());
  if (status.ok()) status = (*device)->device().SetControl(wanted.name(), wanted.value());
  if (status.ok()) {
    spdlog::info("{}: {} sets {}={}", wanted.device(), call.asker().node, Printable(wanted.name()),
                 Printable(wanted.value()));
  }
  call.Answer(status);
}

}  // namespace tripwire::periph

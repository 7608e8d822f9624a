// SPDX-License-Identifier: BSD-3-Clause
// What there is, and who uses it.
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/proto/messages.h"
#include "periph/service/control_service.h"

namespace tripwire::periph {

void ControlService::List(ServedCall call) {
  proto::Reply reply;
  proto::ListReply& list = *reply.mutable_list();
  for (const auto& device : registry_.devices()) {
    if (device->MaySee(call.asker()).ok()) *list.add_devices() = device->Describe();
  }
  if (reply.ByteSizeLong() > kMaxCallBytes) {
    // Their formats fill the most.
    for (proto::DeviceInfo& device : *list.mutable_devices()) {
      device.clear_source_formats();
      device.clear_sink_formats();
      device.clear_users();
    }
  }
  call.Answer(reply, {}, 0, false);
}

void ControlService::Info(ServedCall call) {
  auto device = registry_.Find(call.request().info().device(), call.asker());
  if (!device.ok()) return call.Answer(device.status(), false);
  proto::Reply reply;
  *reply.mutable_info() = (*device)->Describe();
  call.Answer(reply, {}, 0, false);
}

void ControlService::Stat(ServedCall call) {
  const std::string& name = call.request().stat().device();
  if (!name.empty()) {
    if (auto device = registry_.Find(name, call.asker()); !device.ok()) {
      return call.Answer(device.status(), false);
    }
  }
  proto::Reply reply;
  proto::StatReply& stat = *reply.mutable_stat();
  for (proto::StreamStat& stream : stat_(name, call.asker()))
    *stat.add_streams() = std::move(stream);
  call.Answer(reply, {}, 0, false);
}

void ControlService::Watch(ServedCall call) {
  const auto session = call.rpc().session();
  const Asker asker = call.asker();
  call.Answer(proto::Reply(), {}, 0, false);
  presence_.Watch(session, asker);
}

}  // namespace tripwire::periph

// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/proto/messages.h"

namespace tripwire::periph {

const char* ToString(UseKind kind) {
  switch (kind) {
    case UseKind::kSource:
      return "source";
    case UseKind::kSink:
      return "sink";
    case UseKind::kDisk:
      return "disk";
  }
  return "?";
}

Opening& Opening::operator=(Opening&& other) noexcept {
  if (this == &other) return *this;
  Close();
  device_ = std::exchange(other.device_, nullptr);
  id_ = other.id_;
  return *this;
}

void Opening::Close() {
  if (ServedDevice* device = std::exchange(device_, nullptr)) device->Close(id_);
}

ServedDevice::ServedDevice(DeviceConfig config, std::function<void()> changed)
    : config_(std::move(config)),
      kind_(config_.spec.substr(0, config_.spec.find(':'))),
      changed_(std::move(changed)) {}

absl::Status ServedDevice::MaySee(const Asker& asker) const {
  if (config_.access.Admits(asker)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("device '", name(), "' is not for node '", asker.node, "'"));
}

const ServedDevice::User* ServedDevice::HolderBeside(const Asker& asker) const {
  for (const User& user : users_) {
    if (user.asker.user != asker.user && user.use.exclusive) return &user;
  }
  return nullptr;
}

absl::Status ServedDevice::CheckFree(const Asker& asker, bool exclusive) const {
  if (const User* holder = HolderBeside(asker); holder != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("device '", name(), "' is busy: ", holder->asker.node, " has it for itself"));
  }
  if (!exclusive) return absl::OkStatus();
  for (const User& user : users_) {
    if (user.asker.user == asker.user) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("device '", name(), "' is busy: ", user.asker.node,
                     " uses it too, so nobody can have it for himself"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Opening> ServedDevice::Open(const Asker& asker, Use use) {
  if (auto status = MaySee(asker); !status.ok()) return status;
  if (use.writes && config_.access.read_only) {
    return absl::PermissionDeniedError(absl::StrCat("device '", name(), "' is offered read-only"));
  }
  use.exclusive = use.exclusive || config_.access.exclusive;
  std::lock_guard lock(mutex_);
  if (auto status = CheckFree(asker, use.exclusive); !status.ok()) return status;
  users_.push_back({next_id_, asker, use});
  Opening opening;
  opening.device_ = this;
  opening.id_ = next_id_++;
  return opening;
}

void ServedDevice::Close(uint64_t id) {
  std::lock_guard lock(mutex_);
  users_.remove_if([id](const User& user) { return user.id == id; });
}

absl::Status ServedDevice::MayControl(const Asker& asker) const {
  if (auto status = MaySee(asker); !status.ok()) return status;
  if (config_.access.read_only) {
    return absl::PermissionDeniedError(absl::StrCat("device '", name(), "' is offered read-only"));
  }
  std::lock_guard lock(mutex_);
  const User* holder = HolderBeside(asker);
  if (holder == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the settings of device '", name(), "' cannot be changed, it is busy: ",
                   holder->asker.node, " (", holder->asker.program, ") has it for itself"));
}

proto::DeviceInfo ServedDevice::Describe() {
  const DeviceInfo about = device().Describe();
  proto::DeviceInfo info;
  info.set_name(name());
  info.set_kind(kind_);
  info.set_description(Printable(about.description));
  info.set_present(about.present);
  info.set_why_absent(Printable(about.why_absent));
  for (const std::string& format : about.source_formats) info.add_source_formats(format);
  info.set_disk(about.disk);
  info.set_read_only(config_.access.read_only);
  if (!config_.access.read_only) {
    for (const std::string& format : about.sink_formats) info.add_sink_formats(format);
  }
  std::lock_guard lock(mutex_);
  for (const User& user : users_) {
    if (user.use.exclusive) info.set_exclusive(true);
    proto::User& told = *info.add_users();
    told.set_node(user.asker.node);
    told.set_program(user.asker.program);
    told.set_what(ToString(user.use.kind));
  }
  return info;
}

Registry::Registry(std::vector<DeviceConfig> devices, std::function<void()> changed) {
  for (DeviceConfig& config : devices) {
    devices_.push_back(std::make_unique<ServedDevice>(std::move(config), changed));
  }
}

absl::StatusOr<ServedDevice*> Registry::Find(const std::string& name, const Asker& asker) const {
  for (const auto& device : devices_) {
    if (device->name() != name) continue;
    if (auto status = device->MaySee(asker); !status.ok()) return status;
    return device.get();
  }
  return absl::NotFoundError(absl::StrCat("there is no device '", name, "' here"));
}

}  // namespace tripwire::periph

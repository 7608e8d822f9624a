// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/periph_service.h"

#include <cstdlib>
#include <utility>

#include "periph/proto/messages.h"
#include "periph/service/disk_service.h"

namespace tripwire::periph {
namespace {

// What was written and not flushed is in this kernel's memory, whoever serves it.
uint64_t KernelNumber() { return std::strtoull(BootId().substr(0, 8).c_str(), nullptr, 16); }

}  // namespace

PeriphService::PeriphService(std::vector<DeviceConfig> devices)
    : registry_(std::move(devices), [this] { presence_.Nudge(); }) {
  presence_.SetRegistry(registry_);
}

absl::StatusOr<std::unique_ptr<PeriphService>> PeriphService::Start(
    Nic& nic, std::vector<DeviceConfig> devices) {
  std::unique_ptr<PeriphService> service(new PeriphService(std::move(devices)));
  auto streams = StreamService::Start(nic, service->registry_);
  if (!streams.ok()) return streams.status();
  service->streams_ = *std::move(streams);
  service->control_ = std::make_unique<ControlService>(
      service->registry_, service->presence_,
      [&streams = *service->streams_](const std::string& device, const Asker& asker) {
        return streams.Stat(device, asker);
      },
      MakeDiskService(service->registry_, nic.clock(), {.verifier = KernelNumber()}));
  auto server =
      rpc::Server::Start(nic, ControlService::RpcOptions(), service->control_->Callbacks());
  if (!server.ok()) return server.status();
  service->server_ = *std::move(server);
  return service;
}

PeriphService::~PeriphService() {
  presence_.Stop();
  server_.reset();
  control_.reset();
  streams_.reset();
}

std::vector<stats::Group> PeriphService::Counters() {
  const StreamCounters streams = streams_->counters();
  return {{"peripherals",
           {{"devices", registry_.devices().size()},
            {"streams", streams.open},
            {"streams_opened", streams.opened},
            {"streams_refused", streams.refused},
            {"malformed", streams.malformed + control_->malformed()},
            {"calls", control_->calls()},
            {"sessions", control_->session_count()}}}};
}

}  // namespace tripwire::periph

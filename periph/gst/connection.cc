// SPDX-License-Identifier: BSD-3-Clause
#include "periph/gst/connection.h"

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "nic/api/open_nic.h"

namespace tripwire::periph {
namespace {

absl::StatusOr<std::shared_ptr<Connection>> Connect(const std::string& ports,
                                                    const std::string& node) {
  const std::vector<std::string> specs =
      absl::StrSplit(ports, ' ', absl::SkipEmpty());
  auto nic = OpenNic(specs, PortRole::kClient, "gstreamer");
  if (!nic.ok()) return nic.status();
  auto connection = std::make_shared<Connection>();
  connection->nic = *std::move(nic);
  auto devices = Peripherals::Connect(*connection->nic,
                                      {.node = node, .program = "GStreamer"});
  if (!devices.ok()) return devices.status();
  connection->devices = *std::move(devices);
  return connection;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Connection>> ConnectTo(const std::string& ports,
                                                      const std::string& node) {
  static std::mutex mutex;
  static auto& known = *new std::map<std::pair<std::string, std::string>,
                                     std::weak_ptr<Connection>>;
  const std::lock_guard lock(mutex);
  std::weak_ptr<Connection>& place = known[{ports, node}];
  if (auto connection = place.lock()) return connection;
  auto connection = Connect(ports, node);
  if (connection.ok()) place = *connection;
  return connection;
}

}  // namespace tripwire::periph

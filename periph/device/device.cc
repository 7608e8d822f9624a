// SPDX-License-Identifier: BSD-3-Clause
#include "periph/device/device.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tripwire::periph {
namespace {

// Made at first use, so that kinds may register before main in any order.
std::vector<DeviceKind>& Kinds() {
  static std::vector<DeviceKind> kinds;
  return kinds;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Source>> Device::StartSource(const std::string&, FrameTaker&) {
  return absl::UnimplementedError("the device makes nothing that could be read");
}

absl::StatusOr<std::unique_ptr<Sink>> Device::StartSink(const std::string&) {
  return absl::UnimplementedError("the device takes nothing");
}

absl::StatusOr<std::shared_ptr<Disk>> Device::OpenDisk(bool) {
  return absl::UnimplementedError("the device is not a disk");
}

absl::Status Device::SetControl(const std::string& name, const std::string&) {
  return absl::NotFoundError(absl::StrCat("the device has no control '", name, "'"));
}

RegisterKind::RegisterKind(DeviceKind kind) {
  auto& kinds = Kinds();
  auto place = std::lower_bound(
      kinds.begin(), kinds.end(), kind,
      [](const DeviceKind& a, const DeviceKind& b) { return a.word < b.word; });
  kinds.insert(place, std::move(kind));
}

const std::vector<DeviceKind>& AllKinds() { return Kinds(); }

absl::StatusOr<std::unique_ptr<Device>> MakeDevice(const std::string& spec, Clock& clock) {
  const size_t colon = spec.find(':');
  const std::string word = spec.substr(0, colon);
  for (const DeviceKind& kind : AllKinds()) {
    if (kind.word != word) continue;
    if (colon == std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", spec, "' says no more than its kind; it is ", kind.grammar));
    }
    return kind.make(spec.substr(colon + 1), clock);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", word, "' is no kind of device; there are: ",
      absl::StrJoin(AllKinds(), ", ", [](std::string* out, const DeviceKind& kind) {
        out->append(kind.word);
      })));
}

}  // namespace tripwire::periph

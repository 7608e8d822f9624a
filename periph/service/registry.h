// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_REGISTRY_H_
#define TRIPWIRE_PERIPH_SERVICE_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/clock.h"
#include "periph/device/device.h"
#include "periph/proto/periph.pb.h"
#include "periph/service/access.h"

namespace tripwire::periph {

struct DeviceConfig {
  std::string name;
  std::string spec;  // for people
  std::unique_ptr<Device> device;
  AccessRules access;
};

enum class UseKind : uint8_t { kSource, kSink, kDisk };
const char* ToString(UseKind kind);

class ServedDevice;

// A device as one user has it open: while this lives the user is listed, and
// others are kept out if it is exclusive. Movable; destroy it on any thread,
// before the registry.
class Opening {
 public:
  Opening() = default;
  Opening(Opening&& other) noexcept { *this = std::move(other); }
  Opening& operator=(Opening&& other) noexcept;
  ~Opening() { Close(); }
  void Close();
  explicit operator bool() const { return device_ != nullptr; }

 private:
  friend class ServedDevice;
  ServedDevice* device_ = nullptr;
  uint64_t id_ = 0;
};

// One device that is offered: who may use it and who does. Thread-safe.
class ServedDevice {
 public:
  ServedDevice(DeviceConfig config, std::function<void()> changed);

  const std::string& name() const { return config_.name; }
  const std::string& kind() const { return kind_; }
  const AccessRules& access() const { return config_.access; }
  Device& device() { return *config_.device; }

  struct Use {
    UseKind kind = UseKind::kSource;
    bool exclusive = false;
    bool writes = false;  // sinks, and disks not opened read-only
  };
  // PERMISSION_DENIED by the access rules; FAILED_PRECONDITION if somebody has
  // it for himself, or `exclusive` is asked for and others have it open.
  // Openings of the same user never keep each other out.
  absl::StatusOr<Opening> Open(const Asker& asker, Use use);
  // May its controls be set? PERMISSION_DENIED by the access rules; FAILED_PRECONDITION
  // if somebody else has it for himself, for then he alone sets them. To see them one
  // need only see the device.
  absl::Status MayControl(const Asker& asker) const;
  // PERMISSION_DENIED unless the rules admit the asker.
  absl::Status MaySee(const Asker& asker) const;

  // What it is and who uses it. May take as long as the
  // device.
  proto::DeviceInfo Describe();
  // The device may have come or gone: watchers are told soon. Any thread.
  void NotePresence() const { changed_(); }

 private:
  friend class Opening;
  struct User {
    uint64_t id = 0;
    Asker asker;
    Use use;
  };
  // Another user who has it for himself, if there is one. REQUIRES: mutex_
  const User* HolderBeside(const Asker& asker) const;
  absl::Status CheckFree(const Asker& asker,
                         bool exclusive) const;  // REQUIRES: mutex_
  void Close(uint64_t id);

  const DeviceConfig config_;
  const std::string kind_;  // the word of its spec
  const std::function<void()> changed_;
  mutable std::mutex mutex_;
  std::list<User> users_;
  uint64_t next_id_ = 1;
};

// The devices that are offered. Thread-safe; fixed once made.
class Registry {
 public:
  // `changed` is called, on any thread, when some device may have come or gone.
  Registry(std::vector<DeviceConfig> devices, std::function<void()> changed);
  // NOT_FOUND, or PERMISSION_DENIED if the asker may not know more.
  absl::StatusOr<ServedDevice*> Find(const std::string& name, const Asker& asker) const;
  const std::vector<std::unique_ptr<ServedDevice>>& devices() const { return devices_; }

 private:
  std::vector<std::unique_ptr<ServedDevice>> devices_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_REGISTRY_H_

// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/presence.h"

#include <chrono>
#include <utility>
#include <vector>

#include "periph/proto/messages.h"

namespace tripwire::periph {
namespace {

constexpr auto kLookEvery = std::chrono::seconds(1);

}  // namespace

PresenceWatch::PresenceWatch() : thread_([this] { Run(); }) {}

PresenceWatch::~PresenceWatch() { Stop(); }

void PresenceWatch::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    watchers_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void PresenceWatch::Watch(const std::shared_ptr<rpc::ServerSession>& session, const Asker& asker) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  watchers_[session->id()] = {session, asker, {}};
  nudged_ = true;
  changed_.notify_all();
}

void PresenceWatch::Forget(uint64_t session_id) {
  std::lock_guard lock(mutex_);
  watchers_.erase(session_id);
}

void PresenceWatch::Nudge() {
  std::lock_guard lock(mutex_);
  nudged_ = true;
  changed_.notify_all();
}

void PresenceWatch::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait(lock, [this] { return stopping_ || !watchers_.empty(); });
    nudged_ = false;
    lock.unlock();
    if (registry_ != nullptr) Look();
    lock.lock();
    changed_.wait_for(lock, kLookEvery, [this] { return stopping_ || nudged_; });
  }
}

// A device may take its time to say how it is, so none of them is asked under the lock.
void PresenceWatch::Look() {
  for (const auto& device : registry_->devices()) {
    const DeviceInfo info = device->device().Describe();
    const State state{info.present, Printable(info.why_absent)};
    proto::DeviceEvent event;
    event.set_device(device->name());
    event.set_present(state.present);
    event.set_why(state.why);
    std::vector<uint8_t> message(event.ByteSizeLong());
    event.SerializeToArray(message.data(), static_cast<int>(message.size()));
    std::lock_guard lock(mutex_);
    for (auto& [id, watcher] : watchers_) {
      if (!device->MaySee(watcher.asker).ok()) continue;
      const auto told = watcher.told.find(device->name());
      if (told != watcher.told.end() && told->second == state) continue;
      watcher.told[device->name()] = state;
      watcher.session->Notify(message, [](const absl::Status&) {});
    }
  }
}

}  // namespace tripwire::periph

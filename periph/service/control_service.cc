// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/control_service.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/proto/messages.h"

namespace tripwire::periph {
namespace {

constexpr size_t kMaxNameBytes = 256;
// Between calls, streams are first to be woken by frames.
constexpr uint64_t kWatchNs = 20 * kMillisecond;

}  // namespace

ControlService::ControlService(Registry& registry, PresenceWatch& presence, StatOf stat,
                               std::unique_ptr<DiskService> disks)
    : registry_(registry), presence_(presence), stat_(std::move(stat)), disks_(std::move(disks)) {}

rpc::ServerOptions ControlService::RpcOptions() {
  rpc::ServerOptions options;
  options.service = kControlService;
  options.message_bytes = kMaxCallBytes;
  options.watch_ns = kWatchNs;
  return options;
}

rpc::Server::Callbacks ControlService::Callbacks() {
  return {
      .call = [this](rpc::Call call) { Serve(std::move(call)); },
      .open = [this](const auto& session,
                     rpc::Bytes greeting) { return OpenSession(session, greeting); },
      .close = [this](const auto& session) { CloseSession(session); },
  };
}

size_t ControlService::session_count() {
  std::lock_guard lock(mutex_);
  return sessions_.size();
}

absl::StatusOr<std::vector<uint8_t>> ControlService::OpenSession(
    const std::shared_ptr<rpc::ServerSession>& session, rpc::Bytes greeting) {
  proto::Greeting said;
  if (!said.ParseFromArray(greeting.data(), static_cast<int>(greeting.size()))) {
    return absl::InvalidArgumentError("the greeting is not one");
  }
  {
    std::lock_guard lock(mutex_);
    sessions_[session->id()] = {Printable(session->peer(), kMaxNameBytes),
                                Printable(said.program(), kMaxNameBytes), said.user()};
  }
  proto::GreetingReply reply;
  reply.set_version(kProtocolVersion);
  reply.set_machine(BootId());
  std::vector<uint8_t> bytes(reply.ByteSizeLong());
  reply.SerializeToArray(bytes.data(), static_cast<int>(bytes.size()));
  return bytes;
}

void ControlService::CloseSession(const std::shared_ptr<rpc::ServerSession>& session) {
  presence_.Forget(session->id());
  if (disks_ != nullptr) disks_->EndSession(session->id());
  std::lock_guard lock(mutex_);
  sessions_.erase(session->id());
}

void ControlService::Serve(rpc::Call call) {
  calls_.fetch_add(1, std::memory_order_relaxed);
  Asker asker;
  {
    std::lock_guard lock(mutex_);
    const auto session = sessions_.find(call.session()->id());
    if (session != sessions_.end()) asker = session->second;
  }
  auto request = std::make_shared<proto::Request>();
  const rpc::Bytes bytes = call.request();
  if (!request->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    malformed_.fetch_add(1, std::memory_order_relaxed);
    request->Clear();
  }
  Dispatch(ServedCall(std::move(call), std::move(request), std::move(asker)));
}

void ControlService::Dispatch(ServedCall call) {
  switch (call.request().call_case()) {
    case proto::Request::kList:
      return List(std::move(call));
    case proto::Request::kInfo:
      return Info(std::move(call));
    case proto::Request::kStat:
      return Stat(std::move(call));
    case proto::Request::kWatch:
      return Watch(std::move(call));
    case proto::Request::kControls:
      return Controls(std::move(call));
    case proto::Request::kSetControl:
      return SetControl(std::move(call));
    case proto::Request::kDiskOpen:
    case proto::Request::kDiskClose:
    case proto::Request::kDiskIo:
      if (disks_ != nullptr) return disks_->Serve(std::move(call));
      return call.Answer(absl::UnimplementedError("this server has no disks"));
    case proto::Request::CALL_NOT_SET:
      break;
  }
  call.Answer(absl::InvalidArgumentError("the server does not know this call"));
}

}  // namespace tripwire::periph

// SPDX-License-Identifier: BSD-3-Clause
#include "periph/client/control_channel.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "nic/base/random.h"
#include "periph/proto/messages.h"

namespace tripwire::periph {

absl::StatusOr<std::shared_ptr<ControlChannel>> ControlChannel::Connect(
    Nic& nic, const Peripherals::Options& options) {
  std::shared_ptr<ControlChannel> channel(new ControlChannel());
  channel->user_ = Random::FromSystem().Next();
  channel->on_device_ = options.on_device;
  proto::Greeting greeting;
  greeting.set_user(channel->user_);
  greeting.set_program(options.program);
  rpc::ClientOptions rpc_options;
  rpc_options.node = options.node;
  rpc_options.service = kControlService;
  rpc_options.connect_timeout_ns = options.connect_timeout_ns;
  rpc_options.bulk_buffers = 4;
  rpc_options.greeting.resize(greeting.ByteSizeLong());
  greeting.SerializeToArray(rpc_options.greeting.data(),
                            static_cast<int>(rpc_options.greeting.size()));
  rpc_options.on_notify = [raw = channel.get()](rpc::Bytes message) {
    proto::DeviceEvent event;
    if (raw->on_device_ && event.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      event.set_why(Printable(event.why()));
      raw->on_device_(event);
    }
  };
  rpc_options.on_recovered = [raw = channel.get()](rpc::Bytes) { raw->Recovered(); };
  auto client = rpc::Client::Connect(nic, std::move(rpc_options));
  if (!client.ok()) return client.status();
  channel->client_ = *std::move(client);
  channel->connected_.store(true, std::memory_order_release);
  if (channel->on_device_) {
    if (auto status = channel->Watch(false); !status.ok()) return status;
  }
  return channel;
}

ControlChannel::~ControlChannel() = default;

absl::Status ControlChannel::Watch(bool during_recovery) {
  proto::Request request;
  request.mutable_watch();
  proto::Reply reply;
  return Call(request, &reply, kNever, during_recovery);
}

void ControlChannel::Recovered() {
  // The first session is no recovery, and has nobody to tell.
  if (!connected_.load(std::memory_order_acquire)) return;
  // If it fails the session is lost again, and this runs again.
  if (on_device_) (void)Watch(true);
  std::lock_guard lock(mutex_);
  for (const auto& [id, run] : on_restart_) run();
}

uint64_t ControlChannel::OnRestart(std::function<void()> run) {
  std::lock_guard lock(mutex_);
  on_restart_[next_id_] = std::move(run);
  return next_id_++;
}

void ControlChannel::Forget(uint64_t id) {
  std::lock_guard lock(mutex_);
  on_restart_.erase(id);
}

absl::Status MakesNoSense() { return absl::InternalError("the server's answer makes no sense"); }

absl::Status ControlChannel::ParseReply(rpc::Bytes message, proto::Reply* reply) {
  if (!reply->ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    return absl::DataLossError("the server's answer is not one");
  }
  return ToStatus(reply->code(), reply->error());
}

absl::Status ControlChannel::Call(const proto::Request& request, proto::Reply* reply,
                                  uint64_t timeout_ns, bool during_recovery) {
  std::vector<uint8_t> message(request.ByteSizeLong());
  request.SerializeToArray(message.data(), static_cast<int>(message.size()));
  rpc::Request call;
  call.message = message;
  call.timeout_ns = timeout_ns;
  call.during_recovery = during_recovery;
  rpc::Response response;
  if (auto status = client_->Invoke(call, &response); !status.ok()) return status;
  return ParseReply(response.message, reply);
}

}  // namespace tripwire::periph

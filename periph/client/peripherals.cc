// SPDX-License-Identifier: BSD-3-Clause
#include "periph/client/peripherals.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/client/control_channel.h"
#include "periph/client/disk.h"
#include "periph/client/frame_stream.h"
#include "periph/client/kept_output.h"
#include "periph/proto/messages.h"

namespace tripwire::periph {
namespace {

class Remote final : public Peripherals {
 public:
  Remote(Nic& nic, Options options, std::shared_ptr<ControlChannel> channel)
      : nic_(nic), options_(std::move(options)), channel_(std::move(channel)) {}

  const std::string& node() const override { return channel_->node(); }

  absl::StatusOr<std::vector<proto::DeviceInfo>> List() override {
    proto::Request request;
    request.mutable_list();
    proto::Reply reply;
    if (auto status = Ask(request, &reply); !status.ok()) return status;
    if (!reply.has_list()) return MakesNoSense();
    auto& devices = *reply.mutable_list()->mutable_devices();
    return std::vector<proto::DeviceInfo>(devices.begin(), devices.end());
  }

  absl::StatusOr<proto::DeviceInfo> Info(const std::string& device) override {
    proto::Request request;
    request.mutable_info()->set_device(device);
    proto::Reply reply;
    if (auto status = Ask(request, &reply); !status.ok()) return status;
    if (!reply.has_info()) return MakesNoSense();
    return std::move(*reply.mutable_info());
  }

  absl::StatusOr<std::vector<Control>> Controls(const std::string& device) override {
    proto::Request request;
    request.mutable_controls()->set_device(device);
    proto::Reply reply;
    if (auto status = Ask(request, &reply); !status.ok()) return status;
    if (!reply.has_controls()) return MakesNoSense();
    std::vector<Control> controls;
    for (const proto::Control& told : reply.controls().controls()) {
      controls.push_back({told.name(),
                          told.value(),
                          told.help(),
                          {told.choices().begin(), told.choices().end()},
                          told.writable()});
    }
    return controls;
  }

  absl::Status SetControl(const std::string& device, const std::string& name,
                          const std::string& value) override {
    proto::Request request;
    request.mutable_set_control()->set_device(device);
    request.mutable_set_control()->set_name(name);
    request.mutable_set_control()->set_value(value);
    proto::Reply reply;
    return Ask(request, &reply);
  }

  absl::StatusOr<proto::StatReply> Stat(const std::string& device) override {
    proto::Request request;
    request.mutable_stat()->set_device(device);
    proto::Reply reply;
    if (auto status = Ask(request, &reply); !status.ok()) return status;
    if (!reply.has_stat()) return MakesNoSense();
    return std::move(*reply.mutable_stat());
  }

  absl::StatusOr<std::unique_ptr<FrameStream>> OpenSource(const std::string& device,
                                                          StreamOptions options) override {
    return RemoteSource::Open(nic_, Wish(device, std::move(options), false));
  }
  absl::StatusOr<std::unique_ptr<FrameOutput>> OpenSink(const std::string& device,
                                                        StreamOptions options) override {
    return KeptOutput::Open(nic_, Wish(device, std::move(options), true));
  }
  absl::StatusOr<std::shared_ptr<Disk>> OpenDisk(const std::string& device, bool read_only,
                                                 bool exclusive) override {
    return OpenRemoteDisk(channel_, device, read_only, exclusive);
  }

 private:
  absl::Status Ask(const proto::Request& request, proto::Reply* reply) {
    return channel_->Call(request, reply, options_.call_timeout_ns);
  }
  StreamWish Wish(const std::string& device, StreamOptions options, bool sink) const {
    return {node(),
            device,
            options_.program,
            channel_->user(),
            sink,
            options_.connect_timeout_ns,
            std::move(options)};
  }

  Nic& nic_;
  const Options options_;
  const std::shared_ptr<ControlChannel> channel_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peripherals>> Peripherals::Connect(Nic& nic, Options options) {
  auto channel = ControlChannel::Connect(nic, options);
  if (!channel.ok()) return channel.status();
  return std::make_unique<Remote>(nic, std::move(options), *std::move(channel));
}

absl::StatusOr<DeviceName> ParseDeviceName(const std::string& text) {
  // A node may have colons in its name, a device has none.
  const size_t colon = text.rfind(':');
  if (colon == text.npos || colon + 1 == text.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", Printable(text), "' is not NODE:NAME (:NAME if there is one node only)"));
  }
  return DeviceName{text.substr(0, colon), text.substr(colon + 1)};
}

}  // namespace tripwire::periph

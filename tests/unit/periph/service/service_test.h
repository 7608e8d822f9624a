// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PERIPH_SERVICE_SERVICE_TEST_H_
#define TRIPWIRE_TESTS_UNIT_PERIPH_SERVICE_SERVICE_TEST_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "periph/client/peripherals.h"
#include "periph/service/periph_service.h"
#include "tests/unit/comm/test_wire.h"
#include "tests/unit/periph/service/fake_device.h"

namespace tripwire::periph {

// A service with one fake device, "cam", and users of it, over a wire.
class ServiceTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kSoonNs = 60 * kSecond;  // so that a hang ends

  void StartServer(AccessRules access = {}) {
    server_nic_ = wire_.MakeNic(0, "server");
    std::vector<DeviceConfig> devices;
    devices.push_back({"cam", "fake:", std::make_unique<FakeDevice>(cam_), std::move(access)});
    auto service = PeriphService::Start(*server_nic_, std::move(devices));
    ASSERT_TRUE(service.ok()) << service.status();
    service_ = *std::move(service);
  }
  void StopServer() {
    service_.reset();
    server_nic_.reset();
  }
  // Everybody who connects is another user.
  std::unique_ptr<Peripherals> Connect(
      std::function<void(const proto::DeviceEvent&)> on_device = {}) {
    if (client_nic_ == nullptr) client_nic_ = wire_.MakeNic(1, "client");
    Peripherals::Options options;
    options.node = "server";
    options.program = "test";
    options.on_device = std::move(on_device);
    auto peripherals = Peripherals::Connect(*client_nic_, std::move(options));
    EXPECT_TRUE(peripherals.ok()) << peripherals.status();
    return peripherals.ok() ? *std::move(peripherals) : nullptr;
  }
  // REQUIRES: it can be opened.
  std::unique_ptr<FrameStream> Open(Peripherals& user, StreamOptions options = {}) {
    auto stream = user.OpenSource("cam", std::move(options));
    EXPECT_TRUE(stream.ok()) << stream.status();
    return *std::move(stream);
  }
  // A server, its first user, and his stream, whose source runs.
  std::unique_ptr<FrameStream> StartStream(StreamOptions options = {}) {
    StartServer();
    user_ = Connect();
    auto stream = Open(*user_, std::move(options));
    EXPECT_TRUE(cam_.AwaitSources(1));
    return stream;
  }
  static StreamOptions Block(uint32_t slots = 4) {
    StreamOptions options;
    options.policy = Policy::kBlock;
    options.exclusive = true;
    options.slots = slots;
    return options;
  }
  uint64_t Soon() { return client_nic_->clock().NowNs() + kSoonNs; }
  // The next frame's text, or what there is instead.
  std::string Next(FrameStream& stream) { return Text(stream.Next(Soon())); }
  static std::string Text(const absl::StatusOr<FrameView>& view) {
    if (!view.ok()) return view.status().ToString();
    return {view->data().begin(), view->data().end()};
  }

  TestWire wire_;
  FakeControl cam_;
  std::unique_ptr<Nic> server_nic_, client_nic_;
  std::unique_ptr<PeriphService> service_;
  std::unique_ptr<Peripherals> user_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_UNIT_PERIPH_SERVICE_SERVICE_TEST_H_

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PERIPH_DISK_DISK_FIXTURE_H_
#define TRIPWIRE_TESTS_UNIT_PERIPH_DISK_DISK_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "nic/api/nic.h"
#include "nic/comm/rpc.h"
#include "periph/client/disk.h"
#include "periph/service/disk_service.h"
#include "tests/unit/comm/test_wire.h"

namespace tripwire::periph {

// A disk in memory that fails and waits when it is told to.
struct FakeMedium {
  explicit FakeMedium(uint64_t bytes) : content(bytes) {}
  std::mutex mutex;
  std::vector<uint8_t> content;
  Disk::Geometry geometry;
  absl::Status flush_status, write_status, open_status;
  std::function<void()> before_flush, before_read;  // without the mutex
  int flushes = 0, durable_writes = 0, open = 0;
};

class FakeDisk final : public Disk {
 public:
  explicit FakeDisk(FakeMedium* medium) : medium_(medium) {
    std::lock_guard lock(medium_->mutex);
    ++medium_->open;
  }
  ~FakeDisk() override {
    std::lock_guard lock(medium_->mutex);
    --medium_->open;
  }
  Geometry geometry() const override {
    std::lock_guard lock(medium_->mutex);
    Geometry geometry = medium_->geometry;
    geometry.size_bytes = medium_->content.size();
    return geometry;
  }
  absl::Status Read(uint64_t offset, std::span<uint8_t> into) override {
    if (medium_->before_read) medium_->before_read();
    std::lock_guard lock(medium_->mutex);
    if (offset > medium_->content.size() || into.size() > medium_->content.size() - offset) {
      return absl::OutOfRangeError("beyond");
    }
    std::copy_n(medium_->content.data() + offset, into.size(), into.data());
    return absl::OkStatus();
  }
  absl::Status Write(uint64_t offset, std::span<const uint8_t> data, bool durable) override {
    std::lock_guard lock(medium_->mutex);
    if (!medium_->write_status.ok()) return medium_->write_status;
    if (offset > medium_->content.size() || data.size() > medium_->content.size() - offset) {
      return absl::OutOfRangeError("beyond");
    }
    std::copy(data.begin(), data.end(), medium_->content.data() + offset);
    medium_->durable_writes += durable;
    return absl::OkStatus();
  }
  absl::Status Flush() override {
    if (medium_->before_flush) medium_->before_flush();
    std::lock_guard lock(medium_->mutex);
    ++medium_->flushes;
    return medium_->flush_status;
  }
  absl::Status Discard(uint64_t, uint64_t) override { return absl::OkStatus(); }
  absl::Status WriteZeroes(uint64_t offset, uint64_t length, bool) override {
    return Write(offset, std::vector<uint8_t>(length), false);
  }

 private:
  FakeMedium* const medium_;
};

class FakeDevice final : public Device {
 public:
  explicit FakeDevice(FakeMedium* medium) : medium_(medium) {}
  DeviceInfo Describe() override { return {}; }
  absl::StatusOr<std::shared_ptr<Disk>> OpenDisk(bool) override {
    {
      std::lock_guard lock(medium_->mutex);
      if (!medium_->open_status.ok()) return medium_->open_status;
    }
    return std::make_shared<FakeDisk>(medium_);
  }

 private:
  FakeMedium* const medium_;
};

// A call of somebody on no wire, whose answer nobody hears.
class LocalCall final : public rpc::CallImpl {
 public:
  static constexpr uint64_t kSession = 77;
  rpc::Bytes request() const override { return {}; }
  std::span<const uint8_t> bulk_request() const override { return {}; }
  size_t bulk_reply_capacity() const override { return 0; }
  rpc::BulkBuffer AllocateBulk(size_t) override { return {}; }
  const std::shared_ptr<rpc::ServerSession>& session() const override { return session_; }
  uint32_t slot() const override { return 0; }
  uint64_t sequence() const override { return 0; }
  bool cancelled() const override { return false; }
  void OnCancel(std::function<void()>) override {}
  void Reply(rpc::Bytes, rpc::BulkBuffer, size_t, bool) override {}

 private:
  class Session final : public rpc::ServerSession {
   public:
    uint64_t id() const override { return kSession; }
    const std::string& peer() const override { return peer_; }
    bool connected() const override { return true; }
    void Notify(rpc::Bytes, std::function<void(absl::Status)>) override {}
    void Expel(const std::string&) override {}

   private:
    std::string peer_ = "elsewhere";
  };
  std::shared_ptr<rpc::ServerSession> session_ = std::make_shared<Session>();
};

// A service of disks that can be restarted, and users of it, over a wire.
class DiskTest : public ::testing::Test {
 protected:
  ~DiskTest() override { StopServer(); }

  // Devices are made by whatever was added, at each start.
  void Offer(const std::string& name, std::function<std::unique_ptr<Device>()> make) {
    offered_.emplace_back(name, std::move(make));
  }
  void OfferFake(const std::string& name, FakeMedium* medium) {
    Offer(name, [medium] { return std::make_unique<FakeDevice>(medium); });
  }
  void OfferSpec(const std::string& name, const std::string& spec) {
    Offer(name, [this, spec] { return *MakeDevice(spec, clock_); });
  }

  void StartServer() {
    std::vector<DeviceConfig> devices;
    for (const auto& [name, make] : offered_) devices.push_back({name, "fake:", make(), {}});
    registry_ = std::make_unique<Registry>(std::move(devices), [] {});
    service_ = MakeDiskService(*registry_, clock_, options_);
    rpc::Server::Callbacks callbacks;
    callbacks.open = [](const auto&, rpc::Bytes) { return std::vector<uint8_t>(); };
    callbacks.close = [this](const auto& session) { service_->EndSession(session->id()); };
    callbacks.call = [this](rpc::Call call) {
      auto request = std::make_shared<proto::Request>();
      request->ParseFromArray(call.request().data(), static_cast<int>(call.request().size()));
      const Asker asker{call.session()->peer(), "test", call.session()->id()};
      service_->Serve(ServedCall(std::move(call), request, asker));
    };
    rpc::ServerOptions rpc_options;
    rpc_options.service = "periph";
    rpc_options.session_timeout_ns = session_timeout_ns_;
    auto server = rpc::Server::Start(*server_nic_, rpc_options, std::move(callbacks));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  // Lives as long as the server, which may close disks only when it ends.
  FakeMedium& NewMedium(uint64_t bytes) {
    media_.push_back(std::make_unique<FakeMedium>(bytes));
    return *media_.back();
  }
  void StopServer() {
    server_.reset();
    service_.reset();
    registry_.reset();
  }
  void RestartServer() {
    StopServer();
    StartServer();
  }

  std::shared_ptr<ControlChannel> Connect() {
    Peripherals::Options options;
    options.node = "server";
    options.connect_timeout_ns = 20 * kSecond;
    auto channel = ControlChannel::Connect(*client_nic_, options);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return *std::move(channel);
  }
  std::shared_ptr<RemoteDisk> Open(const std::string& device) {
    auto disk = TryOpen(Connect(), {.device = device});
    EXPECT_TRUE(disk.ok()) << disk.status();
    return disk.ok() ? *std::move(disk) : nullptr;
  }
  // A server of one disk, and that disk as its user has it.
  std::shared_ptr<RemoteDisk> Serve(FakeMedium& medium) {
    OfferFake("disk", &medium);
    StartServer();
    return Open("disk");
  }
  static absl::StatusOr<std::shared_ptr<RemoteDisk>> TryOpen(
      std::shared_ptr<ControlChannel> channel, RemoteDisk::Options options) {
    return RemoteDisk::Open(std::move(channel), std::move(options));
  }
  // One call as anybody may make it.
  static absl::Status Call(ControlChannel& channel, const proto::Request& request,
                           rpc::Response* response, std::span<const uint8_t> data = {},
                           size_t room = 0) {
    const std::string message = request.SerializeAsString();
    const iovec bulk = {const_cast<uint8_t*>(data.data()), data.size()};
    rpc::Request call;
    call.message = {reinterpret_cast<const uint8_t*>(message.data()), message.size()};
    if (!data.empty()) call.bulk = {&bulk, 1};
    call.bulk_reply_capacity = room;
    if (auto status = channel.rpc().Invoke(call, response); !status.ok()) return status;
    proto::Reply reply;
    return ControlChannel::ParseReply(response->message, &reply);
  }

  SystemClock clock_;
  DiskServiceOptions options_;
  uint64_t session_timeout_ns_ = 60 * kSecond;
  TestWire wire_;
  std::unique_ptr<Nic> server_nic_ = wire_.MakeNic(0, "server");
  std::unique_ptr<Nic> client_nic_ = wire_.MakeNic(1, "client");
  std::vector<std::pair<std::string, std::function<std::unique_ptr<Device>()>>> offered_;
  std::unique_ptr<Registry> registry_;
  std::vector<std::unique_ptr<FakeMedium>> media_;
  std::unique_ptr<DiskService> service_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_UNIT_PERIPH_DISK_DISK_FIXTURE_H_

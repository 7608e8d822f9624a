// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_COMM_TEST_WIRE_H_
#define TRIPWIRE_TESTS_UNIT_COMM_TEST_WIRE_H_

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "nic/api/nic.h"
#include "nic/base/fd.h"
#include "nic/port/port.h"

namespace tripwire {

// Two ports joined back to back, each of which may be used from a thread of its
// own: real threads and real sleeping, without any hardware. Frames sent while
// the wire is cut are lost. Side 1 shows side 0 memory, if told to.
class TestWire {
 public:
  std::unique_ptr<Port> MakePort(int side) {
    return std::make_unique<WirePort>(shared_, side);
  }
  std::unique_ptr<Nic> MakeNic(int side, const std::string& node) {
    NicOptions options;
    options.node = node;
    options.ports.push_back(MakePort(side));
    // Losses are noticed soon, also on a busy machine.
    options.keepalive_ns = 200 * kMillisecond;
    options.peer_timeout_ns = 2 * kSecond;
    auto nic = Nic::Open(std::move(options));
    return nic.ok() ? *std::move(nic) : nullptr;
  }
  void SetCut(bool is_cut) {
    std::lock_guard lock(shared_->mutex);
    shared_->is_cut = is_cut;
  }
  void Show(size_t bytes) { shared_->shown = std::make_shared<std::vector<uint8_t>>(bytes); }
  // Whether links made from now on see it.
  void SetLook(bool may_look) {
    std::lock_guard lock(shared_->mutex);
    shared_->may_look = may_look;
  }

 private:
  static constexpr uint32_t kFrameBytes = 2048;
  struct Side {
    std::deque<std::vector<uint8_t>> queue;  // towards this side
    bool is_armed = false;
    UniqueFd bell{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  };
  struct Shared {
    std::mutex mutex;
    bool is_cut = false;
    bool may_look = true;
    std::shared_ptr<std::vector<uint8_t>> shown;
    Side sides[2];
  };

  class WirePort final : public Port {
   public:
    WirePort(std::shared_ptr<Shared> shared, int side)
        : shared_(std::move(shared)),
          side_(side),
          self_(shared_->sides[side]),
          other_(shared_->sides[1 - side]) {
      info_.name = "wire";
      info_.mac = {{2, 0, 0, 0, 0, static_cast<uint8_t>(side + 1)}};
      info_.max_frame_bytes = 1514;
      info_.is_reliable = true;
    }
    const PortInfo& info() const override { return info_; }
    size_t Receive(std::span<Frame> frames) override {
      std::lock_guard lock(shared_->mutex);
      size_t n = 0;
      for (; n < frames.size() && !self_.queue.empty(); ++n) {
        frames[n] = New();
        frames[n].length_bytes =
            static_cast<uint32_t>(self_.queue.front().size());
        std::memcpy(frames[n].data, self_.queue.front().data(),
                    frames[n].length_bytes);
        self_.queue.pop_front();
      }
      counters_.rx_frames += n;
      return n;
    }
    size_t Allocate(std::span<Frame> frames) override {
      for (Frame& frame : frames) frame = New();
      return frames.size();
    }
    size_t Transmit(PathId, std::span<const Frame> frames,
                    Ring ring) override {
      std::lock_guard lock(shared_->mutex);
      for (const Frame& frame : frames) {
        if (!shared_->is_cut) {
          other_.queue.emplace_back(frame.data,
                                    frame.data + frame.length_bytes);
        }
        delete[] static_cast<uint8_t*>(frame.cookie);
      }
      if (ring == Ring::kDoorbell && other_.is_armed) Bell(other_);
      counters_.tx_frames += frames.size();
      return frames.size();
    }
    void Release(std::span<const Frame> frames) override {
      for (const Frame& frame : frames) {
        delete[] static_cast<uint8_t*>(frame.cookie);
      }
    }
    bool ArmWakeup() override {
      std::lock_guard lock(shared_->mutex);
      if (!self_.queue.empty()) return false;
      return self_.is_armed = true;
    }
    void DisarmWakeup() override {
      std::lock_guard lock(shared_->mutex);
      self_.is_armed = false;
      uint64_t count;
      [[maybe_unused]] auto n = read(self_.bell.get(), &count, sizeof count);
    }
    int wake_fd() const override { return self_.bell.get(); }
    uint64_t Service(uint64_t) override { return kNever; }
    PortCounters counters() const override { return counters_; }
    std::span<uint8_t> ShownMemory() override {
      if (side_ != 1 || shared_->shown == nullptr) return {};
      return *shared_->shown;
    }
    PeerMemory ShownBy(PathId) override {
      std::lock_guard lock(shared_->mutex);
      if (side_ != 0 || shared_->shown == nullptr || !shared_->may_look) return {};
      return {*shared_->shown, shared_->shown};
    }

   private:
    static Frame New() {
      auto* bytes = new uint8_t[kFrameBytes];
      return {bytes, 0, kFrameBytes, 0, bytes};
    }
    static void Bell(Side& side) {
      const uint64_t one = 1;
      [[maybe_unused]] auto n = write(side.bell.get(), &one, sizeof one);
    }

    const std::shared_ptr<Shared> shared_;
    const int side_;
    Side& self_;
    Side& other_;
    PortInfo info_;
    PortCounters counters_;
  };

  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_UNIT_COMM_TEST_WIRE_H_

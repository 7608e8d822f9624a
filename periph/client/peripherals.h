// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_CLIENT_PERIPHERALS_H_
#define TRIPWIRE_PERIPH_CLIENT_PERIPHERALS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/api/nic.h"
#include "nic/comm/rpc.h"
#include "periph/device/device.h"
#include "periph/proto/periph.pb.h"
#include "periph/stream/clock_offset.h"
#include "periph/stream/frame_ring.h"

// Using another machine's devices from a program.
namespace tripwire::periph {

struct StreamOptions {
  std::string format;  // wanted; empty: whatever it makes
  Policy policy = Policy::kDropOldest;
  uint32_t queue_frames = 4;  // that may wait at the device's side for a free slot
  uint32_t slots = 4;         // of our ring
  bool exclusive = false;     // nobody else may use the device meanwhile; kBlock needs it
  uint64_t late_ns = kNever;  // frames this old on arrival count as late
  // After a lost link, or a restart of the device's server: try to open it again until
  // closed. Otherwise UNAVAILABLE ends the stream.
  bool reconnect = true;
  // A ring of this many bytes at most is granted to a device's claim of frame size.
  uint64_t max_ring_bytes = uint64_t{1} << 30;
};

// Frames of a remote device, in our memory. One thread takes.
class FrameStream {
 public:
  virtual ~FrameStream() = default;  // closes

  // The next frame, waiting for it until `deadline_ns` on the NIC's clock (0: not at all).
  // Errors: DEADLINE_EXCEEDED; OUT_OF_RANGE (the stream ended, everything was taken);
  // UNAVAILABLE (device or link gone, with `reconnect` off); CANCELLED; and what the
  // device's server refused it with. The format may change between two frames.
  virtual absl::StatusOr<FrameView> Next(uint64_t deadline_ns) = 0;
  // Readable when Next may have something to say without waiting; for poll and epoll.
  virtual absl::StatusOr<int> EventFd() = 0;
  // For coroutines (nic/api/await.h): whoever calls Poll, Wait or Drive of this context
  // resumes those that await NextEvent of it; then Next(0) has news.
  virtual Context& context() = 0;
  // Makes Next return CANCELLED. Any thread.
  virtual void Cancel() = 0;

  virtual std::string format() const = 0;   // of the frame last taken, or of the next
  virtual uint64_t max_frame_bytes() const = 0;
  virtual bool device_present() const = 0;
  // Whether there is a link to the device's server now. Without one, the device counts as
  // not present.
  virtual bool connected() const = 0;
  virtual const ClockOffset& clock() const = 0;
  virtual RingCounters counters() const = 0;  // over all rings and reconnections
};

// Frames to a remote device. One thread puts. Also between two puts a lost link is opened
// again (with `reconnect`): the user keeps his place at the device.
class FrameOutput {
 public:
  virtual ~FrameOutput() = default;  // closes at once; Finish first
  // Copies nothing if frame.owner is set; else the bytes are copied. Waits for room.
  // Errors: DEADLINE_EXCEEDED, UNAVAILABLE, CANCELLED, INVALID_ARGUMENT (too large).
  virtual absl::Status Put(const Frame& frame, uint64_t deadline_ns) = 0;
  // No more comes: waits until the device has played all.
  virtual absl::Status Finish(uint64_t deadline_ns) = 0;
  virtual void Cancel() = 0;
  virtual std::string format() const = 0;
  virtual uint64_t max_frame_bytes() const = 0;
  virtual FeederCounters counters() const = 0;
};

// The devices of one node. Thread-safe.
class Peripherals {
 public:
  struct Options {
    std::string node;     // empty: the only one that offers devices
    std::string program;  // for people, at the other end
    uint64_t connect_timeout_ns = 5 * kSecond;
    // How long calls (List, Info, Controls, SetControl, Stat) wait for an answer, also of a
    // server that is away for now, before they fail with DEADLINE_EXCEEDED.
    uint64_t call_timeout_ns = 60 * kSecond;
    std::function<void(const proto::DeviceEvent&)> on_device;  // on a thread of its own
  };
  // Errors as rpc::Client::Connect. `nic` must outlive it.
  static absl::StatusOr<std::unique_ptr<Peripherals>> Connect(Nic& nic, Options options);
  virtual ~Peripherals() = default;

  virtual const std::string& node() const = 0;
  virtual absl::StatusOr<std::vector<proto::DeviceInfo>> List() = 0;
  virtual absl::StatusOr<proto::DeviceInfo> Info(const std::string& device) = 0;
  virtual absl::StatusOr<std::vector<Control>> Controls(const std::string& device) = 0;
  virtual absl::Status SetControl(const std::string& device, const std::string& name,
                                  const std::string& value) = 0;
  virtual absl::StatusOr<proto::StatReply> Stat(const std::string& device) = 0;

  virtual absl::StatusOr<std::unique_ptr<FrameStream>> OpenSource(const std::string& device,
                                                                  StreamOptions options) = 0;
  virtual absl::StatusOr<std::unique_ptr<FrameOutput>> OpenSink(const std::string& device,
                                                                StreamOptions options) = 0;
  // A disk that rides through lost links and restarts of the server; operations may be
  // called from many threads at once.
  virtual absl::StatusOr<std::shared_ptr<Disk>> OpenDisk(const std::string& device, bool read_only,
                                                         bool exclusive) = 0;
};

// NODE:NAME; an empty NODE means the only one found. INVALID_ARGUMENT if it is not one.
struct DeviceName {
  std::string node, device;
};
absl::StatusOr<DeviceName> ParseDeviceName(const std::string& text);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_CLIENT_PERIPHERALS_H_

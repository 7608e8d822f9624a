// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_DEVICE_H_
#define TRIPWIRE_PERIPH_DEVICE_DEVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/clock.h"
#include "periph/stream/frame.h"

// What a kind of device must be able to do. How devices are shared, streamed and
// protected is the service's business (periph/service), the same for all kinds; a kind
// is one file in periph/kinds.
namespace tripwire::periph {

// A format is a media type in the notation of GStreamer's caps, for example
// "video/x-raw, format=I420, width=1280, height=720, framerate=30/1". Byte streams are:
inline constexpr char kByteStream[] = "application/octet-stream";

// What one knob of a device is: a serial line's speed, a property of an element.
struct Control {
  std::string name;
  std::string value;
  std::string help;                  // what it is, its unit and range
  std::vector<std::string> choices;  // if only some values are possible
  bool writable = true;
};

// Takes what a source makes. Any thread of the source's, one call at a time.
class FrameTaker {
 public:
  virtual ~FrameTaker() = default;
  // The service numbers frames: `number` is ignored. `overrun` counts what the source
  // lost. May block (if a consumer asked that nothing be lost), until Source::Stop.
  virtual void Take(Frame frame) = 0;
  // The next frames are in another format, of at most so many bytes.
  virtual void SetFormat(const std::string& format, uint64_t max_frame_bytes) = 0;
  // No more frames come: OK is the end of the stream; UNAVAILABLE means that the device
  // has gone (unplugged, its program ended) and may come back: the service then tries
  // to start it again while it has users. The last call; the source must still be
  // stopped.
  virtual void End(const absl::Status& why) = 0;
};

// A running source. Stop returns when no call of the taker is under way and none will
// come; it makes a blocked Take return first (see FrameTaker). The destructor stops too.
class Source {
 public:
  virtual ~Source() = default;
  virtual const std::string& format() const = 0;     // fixed: exactly what comes
  virtual uint64_t max_frame_bytes() const = 0;      // > 0
};

// A running sink: takes frames in the format it was started with.
class Sink {
 public:
  virtual ~Sink() = default;  // at once; what was put and not yet played is lost
  virtual const std::string& format() const = 0;
  virtual uint64_t max_frame_bytes() const = 0;
  // Plays, shows or writes it; blocks while the device has no room, and paces the user
  // so. The bytes are the caller's again when it returns. UNAVAILABLE: the device has
  // gone. Interrupted by Cancel.
  virtual absl::Status Put(const Frame& frame) = 0;
  // Returns when all that was put was played. Interrupted by Cancel.
  virtual absl::Status Drain() = 0;
  // Makes a Put or Drain under way, or the next, return CANCELLED. Any thread.
  virtual void Cancel() = 0;
};

// Random access to a disk or an image. Thread-safe: many operations at once.
class Disk {
 public:
  struct Geometry {
    uint64_t size_bytes = 0;
    uint32_t logical_block_bytes = 512;
    uint32_t physical_block_bytes = 4096;
    bool read_only = false;
    bool can_discard = false;
    bool rotational = false;
    uint64_t medium = 0;      // names it, as long as it exists; 0: it has no name
    uint64_t appearance = 0;  // another: the device was away, with what was not flushed
  };
  virtual ~Disk() = default;
  virtual Geometry geometry() const = 0;
  // Whole ranges or an error (OUT_OF_RANGE, PERMISSION_DENIED, DATA_LOSS for a failed
  // medium, UNAVAILABLE if the device has gone, RESOURCE_EXHAUSTED for no space).
  virtual absl::Status Read(uint64_t offset, std::span<uint8_t> into) = 0;
  // The same if it takes no waiting for the medium; false if it does, or on errors: then
  // nothing was done that counts.
  virtual bool ReadAtOnce(uint64_t /*offset*/, std::span<uint8_t> /*into*/) { return false; }
  // With `durable`, on the medium when it returns; else after the next Flush.
  virtual absl::Status Write(uint64_t offset, std::span<const uint8_t> data, bool durable) = 0;
  // Everything written before it began is on the medium. Once this has failed nobody
  // knows what is there, and it fails until the disk is opened again.
  virtual absl::Status Flush() = 0;
  // The content does not matter any more; it need not become zero.
  virtual absl::Status Discard(uint64_t offset, uint64_t length) = 0;
  // With `may_unmap`, space that holds zeroes may be given back.
  virtual absl::Status WriteZeroes(uint64_t offset, uint64_t length, bool may_unmap) = 0;
};

struct DeviceInfo {
  std::string description;           // one line, for people
  bool present = true;               // could be opened now
  std::string why_absent;            // one line
  std::vector<std::string> source_formats;  // what can be asked for; empty: no source
  std::vector<std::string> sink_formats;    // empty: no sink
  bool disk = false;
  // Sources of different formats may run at once.
  bool many_formats = false;
};

// One device as configured; it need not be there yet. Thread-safe.
class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceInfo Describe() = 0;

  // Starts making frames in a format that `format` admits ("" admits all). Errors, each
  // one clear line: INVALID_ARGUMENT (not a format), UNIMPLEMENTED (a format it cannot
  // make, or no source at all), UNAVAILABLE (not there now; may come), PERMISSION_DENIED,
  // FAILED_PRECONDITION (busy, by another program or in another format).
  // The taker outlives the source.
  virtual absl::StatusOr<std::unique_ptr<Source>> StartSource(const std::string& format,
                                                              FrameTaker& taker);
  virtual absl::StatusOr<std::unique_ptr<Sink>> StartSink(const std::string& format);
  virtual absl::StatusOr<std::shared_ptr<Disk>> OpenDisk(bool read_only);

  // Its knobs, with their present values.
  virtual absl::StatusOr<std::vector<Control>> Controls() { return std::vector<Control>{}; }
  // INVALID_ARGUMENT for a bad value, NOT_FOUND for no such control.
  virtual absl::Status SetControl(const std::string& name, const std::string& value);
};

// A kind of device, known by the word before the colon in a device's SPEC.
struct DeviceKind {
  std::string word;     // "tty"
  std::string grammar;  // "tty:PATH[,speed=BAUD]...", for --help
  std::string help;     // one line
  // `argument` is what follows the colon. Fails only for what can never work
  // (INVALID_ARGUMENT); a device that is merely absent is made.
  std::function<absl::StatusOr<std::unique_ptr<Device>>(const std::string& argument, Clock& clock)>
      make;
};

// In a kind's file, at namespace scope: `const RegisterKind kSerial{{"tty", ...}};`
class RegisterKind {
 public:
  explicit RegisterKind(DeviceKind kind);
};

// All kinds this program was built with, by word.
const std::vector<DeviceKind>& AllKinds();

// A device from its SPEC, KIND:ARGUMENT. INVALID_ARGUMENT names the known kinds.
absl::StatusOr<std::unique_ptr<Device>> MakeDevice(const std::string& spec, Clock& clock);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_DEVICE_H_

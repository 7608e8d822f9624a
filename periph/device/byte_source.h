// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_BYTE_SOURCE_H_
#define TRIPWIRE_PERIPH_DEVICE_BYTE_SOURCE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "nic/base/clock.h"
#include "periph/device/bytes.h"
#include "periph/device/device.h"

namespace tripwire::periph {

// Where the bytes of a ByteSource come from. Used by one thread at a time.
class ByteInput {
 public:
  enum class What : uint8_t {
    kBytes,
    kNothing,  // none there now
    kEnd,      // there will be none: see `why`
  };
  struct Piece {
    What what = What::kNothing;
    size_t length = 0;
    absl::Status why;  // as FrameTaker::End
  };
  virtual ~ByteInput() = default;
  // Polled for reading. If it always is (devices that cannot be polled),
  // kNothing makes the source wait a little.
  virtual int fd() const = 0;
  // What is there, without waiting.
  virtual Piece Read(std::span<uint8_t> into) = 0;
  // How much was lost before what was read last, in all, in the device's own
  // measure.
  virtual uint64_t overrun() { return 0; }
  // Also polled, if not -1; then Check says whether to go on, else it is the
  // end.
  virtual int news_fd() const { return -1; }
  virtual absl::Status Check() { return absl::OkStatus(); }
};

// One read of a descriptor as a Piece: an errno becomes DeviceError(errno,
// name).
ByteInput::Piece ReadPiece(int fd, std::span<uint8_t> into,
                           const std::string& name);

// A source whose frames are what each read gave: no byte waits for others. It
// reads only while the taker takes, so what the taker has no room for stays in
// the device.
class ByteSource final : public Source {
 public:
  struct Options {
    uint64_t frame_bytes = kByteFrameBytes;  // the longest
  };
  ByteSource(std::unique_ptr<ByteInput> input, FrameTaker& taker, Clock& clock,
             Options options);
  ~ByteSource() override;

  const std::string& format() const override { return format_; }
  uint64_t max_frame_bytes() const override { return options_.frame_bytes; }

 private:
  void Run();
  // Returns false to stop, or at the end (which is `why`).
  bool Await(absl::Status& why);
  bool TakeOne(absl::Status& why);
  std::span<uint8_t> Room();

  const Options options_;
  const std::string format_ = kByteStream;
  const std::unique_ptr<ByteInput> input_;
  FrameTaker& taker_;
  Clock& clock_;
  WakeFd stop_;
  std::atomic<bool> stopping_{false};  // a flag; guards nothing
  int pause_ms_ = 0;                   // after news that was none

  // Frames lie in slabs, one after the other; a slab lives as long as frames in
  // it.
  std::shared_ptr<uint8_t[]> slab_;
  size_t slab_bytes_ = 0, slab_used_ = 0;

  std::thread thread_;  // last: it uses the rest
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_BYTE_SOURCE_H_

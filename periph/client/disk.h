// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_CLIENT_DISK_H_
#define TRIPWIRE_PERIPH_CLIENT_DISK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/comm/rpc.h"
#include "periph/client/control_channel.h"
#include "periph/device/device.h"
#include "periph/proto/periph.pb.h"

namespace tripwire::periph {

// Peripherals::OpenDisk, on a channel that the disk keeps.
absl::StatusOr<std::shared_ptr<Disk>> OpenRemoteDisk(std::shared_ptr<ControlChannel> channel,
                                                     const std::string& device, bool read_only,
                                                     bool exclusive);

// Another machine's disk. Thread-safe.
//
//  1. An operation waits while the link or the server is away, and goes on when it is
//     back; a server that was restarted is asked for the disk again. While the device is
//     absent there, operations wait too.
//  2. When that cannot be had again unchanged (it is busy, has another size, is another
//     disk, or somebody else has written to it meanwhile), all operations fail from then on.
//  3. What Flush returned OK for is on the medium. A server's end loses nothing that it has
//     acknowledged, since its machine's memory has it. If that machine itself restarted
//     (another verifier) while something was acknowledged and not flushed, that may be
//     lost, no copy is kept here, and the next Flush, and all then under way, fail with
//     DATA_LOSS.
//  4. A write, zeroing or discard that was under way meanwhile is done again: who writes
//     to the same place at the same time knows only that it will be one or the other.
class RemoteDisk final : public Disk, public std::enable_shared_from_this<RemoteDisk> {
 public:
  struct Options {
    std::string device;
    bool read_only = false;
    bool exclusive = true;
    // How long to wait for the disk of a user who cannot be reached; and, after a
    // restart, until a disk that is busy is given up.
    uint64_t patience_ns = 20 * kSecond;
  };
  static absl::StatusOr<std::shared_ptr<RemoteDisk>> Open(std::shared_ptr<ControlChannel> channel,
                                                          Options options);
  ~RemoteDisk() override;  // closes

  Geometry geometry() const override { return geometry_; }
  absl::Status Read(uint64_t offset, std::span<uint8_t> into) override;
  absl::Status Write(uint64_t offset, std::span<const uint8_t> data, bool durable) override;
  absl::Status Flush() override;
  absl::Status Discard(uint64_t offset, uint64_t length) override;
  absl::Status WriteZeroes(uint64_t offset, uint64_t length, bool may_unmap) override;

  // At most piece_bytes(), which stay where the server put them, in `response->bulk`.
  size_t piece_bytes() const { return piece_bytes_; }
  absl::Status ReadPiece(uint64_t offset, size_t length, rpc::Response* response);

 private:
  // What was true when an operation began.
  struct Start {
    uint32_t number = 0;
    uint64_t openings = 0, era = 0;
  };
  // One operation in its caller's hands.
  struct Io {
    proto::DiskIo::Operation operation = proto::DiskIo::NONE;
    uint64_t offset = 0, length = 0;
    bool durable = false, may_unmap = false;
    const uint8_t* data = nullptr;  // to be written
    uint8_t* into = nullptr;        // where a read's data goes in the end
  };
  enum class Outcome { kDone, kOpenAgain, kDoAgain };
  class Crowd;

  RemoteDisk(std::shared_ptr<ControlChannel> channel, Options options);
  absl::Status FirstOpen();
  // `*is_over`: the error is not the server's; the session has ended.
  absl::StatusOr<proto::DiskOpened> AskToOpen(bool during_recovery, bool* is_over);
  absl::StatusOr<proto::DiskOpened> AskToOpenAs(uint32_t number, bool during_recovery,
                                                bool* is_over);
  void AskToClose(uint32_t number, bool during_recovery);
  absl::Status Accept(const proto::DiskOpened& opened, bool during_recovery);
  absl::Status Examine(const proto::DiskOpened& opened);
  absl::Status CheckSame(const proto::DiskOpened& opened) const;  // REQUIRES: mutex_
  void Restarted();
  absl::Status OpenAgain(uint64_t openings);

  absl::StatusOr<Start> Begin();
  static std::string Message(const Io& io, uint32_t number);
  Outcome Judge(const Io& io, const Start& start, absl::Status* status, rpc::Bytes message);
  absl::Status Do(const Io& io, rpc::Response* response);
  absl::Status DoAll(const Io& io);

  const std::shared_ptr<ControlChannel> channel_;
  const Options options_;
  size_t piece_bytes_ = 0;
  Geometry geometry_;
  uint64_t on_restart_ = 0;

  // Held while somebody who is no recovery opens it again. Before mutex_.
  std::mutex opening_mutex_;
  std::mutex mutex_;  // for what follows
  absl::Status failed_;      // for good
  proto::DiskOpened last_;   // what the server said last
  // Names it in the session. Each opening has another, so that what was meant for one is
  // never done to the next before that was examined.
  uint32_t number_ = 0;
  uint64_t openings_ = 0;    // counts them
  uint64_t era_ = 0;         // counts verifiers
  // Writes and the like: how many were acknowledged, how many of these flushed.
  uint64_t acknowledged_ = 0, flushed_ = 0;
  // How often such may have been lost, and how much of that was told.
  uint64_t losses_ = 0, losses_told_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_CLIENT_DISK_H_

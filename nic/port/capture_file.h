// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_CAPTURE_FILE_H_
#define TRIPWIRE_NIC_PORT_CAPTURE_FILE_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/fd.h"
#include "nic/port/port.h"

namespace tripwire {

enum class CaptureDirection : uint32_t { kInbound = 1, kOutbound = 2 };

// Appends an enhanced packet block of pcapng for this frame to `blocks`: the
// whole frame, its tail included, with direction and time (ns since 1970).
void AppendPacketBlock(const Frame& frame, CaptureDirection direction,
                       uint64_t time_ns, std::vector<uint8_t>& blocks);

// A pcapng file (or FIFO) with one interface, written by a thread of its own,
// so that a slow disk or reader holds nobody up: what does not fit the buffer
// is left out and counted. Blocks reach the file whole and at once; it can be
// followed while it grows.
//
// Thread safety: Append and the counters may be called from any thread.
class CaptureFile {
 public:
  static constexpr size_t kBufferBytes = 32u << 20;

  // Truncates `path`. Errors: why it cannot be opened; FAILED_PRECONDITION when
  // another capture writes to it.
  static absl::StatusOr<std::unique_ptr<CaptureFile>> Open(
      const std::string& path, const PortInfo& port,
      size_t buffer_bytes = kBufferBytes);
  // Writes what is left and the totals, for at most a second.
  ~CaptureFile();
  CaptureFile(const CaptureFile&) = delete;

  // Whole blocks of `frames` frames, taken all or, for want of room, not.
  void Append(std::span<const uint8_t> blocks, size_t frames);

  // Nothing is written any more: the disk is full or the reader is gone.
  bool has_failed() const { return failed_.load(std::memory_order_relaxed); }
  uint64_t written_frames() const;  // taken; in the file now or soon
  uint64_t dropped_frames() const;

 private:
  CaptureFile(std::string path, UniqueFd fd, UniqueFd stop,
              size_t buffer_bytes);
  void Run();
  size_t WriteAll(std::span<const uint8_t> blocks, size_t frames);
  bool WaitForRoom();
  size_t Fail(std::span<const uint8_t> blocks, size_t written, int error);

  const std::string path_;
  const UniqueFd fd_;
  const UniqueFd stop_;  // eventfd: readable when the end was asked for
  const size_t buffer_bytes_;
  std::atomic<bool> failed_{false};  // a hint; guards nothing

  mutable std::mutex mutex_;
  std::condition_variable news_;
  std::vector<uint8_t> filling_;  // to be written next
  size_t filling_frames_ = 0;
  uint64_t written_frames_ = 0, dropped_frames_ = 0;
  bool said_dropped_ = false;
  bool stopping_ = false;

  std::vector<uint8_t> writing_;  // the thread's
  std::thread thread_;            // last: it uses all of the above
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_CAPTURE_FILE_H_

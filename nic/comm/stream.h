// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_STREAM_H_
#define TRIPWIRE_NIC_COMM_STREAM_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/api/context.h"
#include "nic/comm/ring.h"

// A stream of bytes both ways over a link that is already there, with the
// manners of a connected socket. One side offers it and hands its name to the
// other by whatever they have; the other joins.
namespace tripwire::comm {

// Thread safety: one thread may read while another writes. Must go before its
// context; the link stays the caller's to close.
class Stream {
 public:
  // `ring_bytes`: how much the peer may send ahead of our reads.
  static std::unique_ptr<Stream> Offer(Context& context, LinkId link,
                                       uint32_t ring_bytes);
  static std::unique_ptr<Stream> Join(Context& context, LinkId link,
                                      const ApertureName& offered,
                                      uint32_t ring_bytes);
  ~Stream();  // as Shutdown, and the peer hears that nobody reads any more
  Stream(const Stream&) = delete;

  // Of an offered stream: what the peer joins by.
  const ApertureName& name() const { return receiver_.name(); }

  // Reads what is there, at least one byte, at most into.size(); waits for it
  // until `deadline_ns` on the NIC's clock (0: not at all). 0 bytes: the peer
  // will write no more (or `into` is empty). Errors: DEADLINE_EXCEEDED,
  // UNAVAILABLE (the link is lost, and what had come was read), DATA_LOSS.
  absl::StatusOr<size_t> Read(std::span<uint8_t> into, uint64_t deadline_ns);

  // Writes all of `data`, waiting for room until the deadline; returns how many
  // bytes it took, fewer than asked for only if the deadline passed or the
  // stream broke in between. The bytes are copied. Errors, when it took none:
  // DEADLINE_EXCEEDED, FAILED_PRECONDITION (the peer reads no more, or our side
  // was shut down), UNAVAILABLE, DATA_LOSS.
  absl::StatusOr<size_t> Write(std::span<const uint8_t> data,
                               uint64_t deadline_ns);

  // We will write no more: the peer reads to the end, then gets 0. Reading goes
  // on. UNAVAILABLE when the link is lost.
  absl::Status Shutdown(uint64_t deadline_ns);

 private:
  Stream(Context& context, LinkId link, uint32_t ring_bytes)
      : context_(context), link_(link), receiver_(context, link, ring_bytes) {}
  absl::Status EnsureSender(uint64_t deadline_ns);

  Context& context_;
  const LinkId link_;
  RingReceiver receiver_;
  std::unique_ptr<RingSender> sender_;  // the writing thread's
};

}  // namespace tripwire::comm

#endif  // TRIPWIRE_NIC_COMM_STREAM_H_

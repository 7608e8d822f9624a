// SPDX-License-Identifier: BSD-3-Clause
#include "nic/comm/stream.h"

#include <algorithm>

namespace tripwire::comm {

std::unique_ptr<Stream> Stream::Offer(Context& context, LinkId link,
                                      uint32_t ring_bytes) {
  return std::unique_ptr<Stream>(new Stream(context, link, ring_bytes));
}

std::unique_ptr<Stream> Stream::Join(Context& context, LinkId link,
                                     const ApertureName& offered,
                                     uint32_t ring_bytes) {
  std::unique_ptr<Stream> stream(new Stream(context, link, ring_bytes));
  stream->sender_ = std::make_unique<RingSender>(context, link, offered,
                                                 stream->receiver_.name());
  return stream;
}

Stream::~Stream() { (void)Shutdown(0); }

absl::StatusOr<size_t> Stream::Read(std::span<uint8_t> into,
                                    uint64_t deadline_ns) {
  if (into.empty()) return size_t{0};
  const absl::Status status = receiver_.WaitReadable(1, deadline_ns);
  if (absl::IsOutOfRange(status)) return size_t{0};
  if (!status.ok()) return status;
  const auto piece =
      into.first(std::min<uint64_t>(into.size(), receiver_.readable()));
  receiver_.Peek(0, piece);
  receiver_.Consume(piece.size());
  return piece.size();
}

// The offering side learns from the joining one where to write.
absl::Status Stream::EnsureSender(uint64_t deadline_ns) {
  if (sender_ != nullptr) return absl::OkStatus();
  ApertureName reverse;
  if (absl::Status s = receiver_.WaitJoined(&reverse, deadline_ns); !s.ok()) {
    return s;
  }
  sender_ = std::make_unique<RingSender>(context_, link_, reverse);
  return absl::OkStatus();
}

absl::StatusOr<size_t> Stream::Write(std::span<const uint8_t> data,
                                     uint64_t deadline_ns) {
  if (absl::Status s = EnsureSender(deadline_ns); !s.ok()) return s;
  size_t written = 0;
  while (written < data.size()) {
    absl::Status status = sender_->WaitWritable(1, deadline_ns);
    const auto piece = data.subspan(
        written,
        std::min<uint64_t>(data.size() - written, sender_->writable()));
    if (status.ok()) status = sender_->Put(piece);
    if (status.ok()) status = sender_->Publish();
    if (!status.ok()) {
      if (written > 0) return written;
      return status;
    }
    written += piece.size();
  }
  return written;
}

absl::Status Stream::Shutdown(uint64_t deadline_ns) {
  if (absl::Status s = EnsureSender(deadline_ns); !s.ok()) return s;
  return sender_->End();
}

}  // namespace tripwire::comm

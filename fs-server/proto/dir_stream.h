// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_PROTO_DIR_STREAM_H_
#define TRIPWIRE_FS_SERVER_PROTO_DIR_STREAM_H_

#include <cstddef>
#include <cstdint>

#include "fs-server/proto/fs.pb.h"

// The bulk reply of READDIR: entries, each as a varint length and a DirEntry.
namespace tripwire::fs {

// Appends entries to a fixed buffer.
class DirStreamWriter {
 public:
  DirStreamWriter(uint8_t* data, size_t capacity)
      : begin_(data), next_(data), end_(data + capacity) {}

  // False, leaving the buffer as it was, when the entry does not fit.
  bool Append(const pb::DirEntry& entry) {
    const size_t size = entry.ByteSizeLong();
    size_t prefix = 1;
    for (size_t rest = size; rest >= 0x80; rest >>= 7) ++prefix;
    const auto room = static_cast<size_t>(end_ - next_);
    if (prefix > room || size > room - prefix) return false;
    size_t rest = size;
    for (; rest >= 0x80; rest >>= 7) *next_++ = static_cast<uint8_t>(rest | 0x80);
    *next_++ = static_cast<uint8_t>(rest);
    next_ = entry.SerializeWithCachedSizesToArray(next_);
    return true;
  }
  size_t size() const { return static_cast<size_t>(next_ - begin_); }

 private:
  uint8_t* begin_;
  uint8_t* next_;
  uint8_t* end_;
};

// Reads them back. The bytes come from a peer: any content is safe.
class DirStreamReader {
 public:
  DirStreamReader(const uint8_t* data, size_t size)
      : next_(data), end_(data + size) {}

  // Reads the next entry; false at the end or when the rest is malformed.
  bool Next(pb::DirEntry* entry) {
    uint64_t size = 0;
    const uint8_t* p = next_;
    for (int shift = 0;; shift += 7) {
      if (p == end_) {
        malformed_ = p != next_;
        return false;
      }
      size |= static_cast<uint64_t>(*p & 0x7f) << shift;
      if (*p++ < 0x80) break;
      if (shift >= 28) return Malformed();
    }
    if (size > static_cast<uint64_t>(end_ - p)) return Malformed();
    if (!entry->ParseFromArray(p, static_cast<int>(size))) return Malformed();
    next_ = p + size;
    return true;
  }
  bool malformed() const { return malformed_; }

 private:
  bool Malformed() {
    malformed_ = true;
    next_ = end_;
    return false;
  }
  const uint8_t* next_;
  const uint8_t* end_;
  bool malformed_ = false;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_PROTO_DIR_STREAM_H_

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_HANDLE_H_
#define TRIPWIRE_FS_SERVER_HANDLE_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

namespace tripwire::fs {

// Which inode, for ever: the file system and what names the inode within it. Two
// inodes never have the same id, also not one after the other.
struct FileId {
  static constexpr size_t kMaxBytes = 40;
  static constexpr uint16_t kMapped = 0xffff;  // bytes: device, inode, birth time

  uint64_t fs = 0;     // Mount::key
  uint16_t type = 0;   // the kernel's handle type, or kMapped
  uint8_t size = 0;
  std::array<uint8_t, kMaxBytes> bytes{};  // zero beyond `size`

  bool operator==(const FileId& other) const {
    return fs == other.fs && type == other.type && size == other.size &&
           std::memcmp(bytes.data(), other.bytes.data(), size) == 0;
  }
  template <typename H>
  friend H AbslHashValue(H h, const FileId& id) {
    h = H::combine(std::move(h), id.fs, id.type);
    return H::combine_contiguous(std::move(h), id.bytes.data(), id.size);
  }
};

// SipHash-2-4 (Aumasson, Bernstein 2012): a keyed checksum of short inputs.
uint64_t SipHash(const std::array<uint8_t, 16>& key, const void* data, size_t size);

// Turns inode ids into the handles clients hold, and back. The layout, integers
// little-endian:
//    0  u8   version (1)
//    1  u8   n, bytes of the inode's name within its file system (0..40)
//    2  u16  FileId::type
//    4  u32  export id
//    8  u64  FileId::fs
//   16  n    FileId::bytes
// 16+n  u64  SipHash of all before, under the server's key
// A client cannot forge one, so a handle is proof that the server gave it out.
// Thread-safe.
class HandleCodec {
 public:
  explicit HandleCodec(const std::array<uint8_t, 16>& key) : key_(key) {}
  // Reads the key kept in `state_dir`, or makes one.
  static absl::StatusOr<HandleCodec> Load(const std::string& state_dir);

  void Encode(uint32_t export_id, const FileId& id, std::string* handle) const;
  // Nothing when it is malformed, forged or of another export.
  std::optional<FileId> Decode(uint32_t export_id, std::string_view handle) const;
  uint32_t ExportId(std::string_view name) const;

 private:
  std::array<uint8_t, 16> key_;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_HANDLE_H_

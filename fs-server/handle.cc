// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/handle.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "nic/base/fd.h"

namespace tripwire::fs {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kFixed = 16;
constexpr size_t kChecksum = 8;

uint64_t Load64(const uint8_t* p) {
  uint64_t v = 0;
  for (int i = 7; i >= 0; --i) v = v << 8 | p[i];
  return v;
}

void Store(uint8_t* p, uint64_t v, int bytes) {
  for (int i = 0; i < bytes; ++i, v >>= 8) p[i] = static_cast<uint8_t>(v);
}

}  // namespace

uint64_t SipHash(const std::array<uint8_t, 16>& key, const void* data, size_t size) {
  const uint64_t k0 = Load64(key.data());
  const uint64_t k1 = Load64(key.data() + 8);
  uint64_t v0 = k0 ^ 0x736f6d6570736575u, v1 = k1 ^ 0x646f72616e646f6du;
  uint64_t v2 = k0 ^ 0x6c7967656e657261u, v3 = k1 ^ 0x7465646279746573u;
  auto round = [&] {
    v0 += v1, v1 = std::rotl(v1, 13), v1 ^= v0, v0 = std::rotl(v0, 32);
    v2 += v3, v3 = std::rotl(v3, 16), v3 ^= v2;
    v0 += v3, v3 = std::rotl(v3, 21), v3 ^= v0;
    v2 += v1, v1 = std::rotl(v1, 17), v1 ^= v2, v2 = std::rotl(v2, 32);
  };
  const auto* p = static_cast<const uint8_t*>(data);
  for (size_t left = size; left >= 8; left -= 8, p += 8) {
    const uint64_t m = Load64(p);
    v3 ^= m;
    round();
    round();
    v0 ^= m;
  }
  uint64_t last = static_cast<uint64_t>(size) << 56;
  for (size_t i = 0; i < size % 8; ++i) last |= static_cast<uint64_t>(p[i]) << (8 * i);
  v3 ^= last;
  round();
  round();
  v0 ^= last;
  v2 ^= 0xff;
  for (int i = 0; i < 4; ++i) round();
  return v0 ^ v1 ^ v2 ^ v3;
}

absl::StatusOr<HandleCodec> HandleCodec::Load(const std::string& state_dir) {
  const std::string path = absl::StrCat(state_dir, "/handle.key");
  std::array<uint8_t, 16> key;
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (fd) {
    if (read(fd.get(), key.data(), key.size()) == static_cast<ssize_t>(key.size())) {
      return HandleCodec(key);
    }
    return absl::DataLossError(
        absl::StrCat(path, ": not a key; remove it (clients must mount anew)"));
  }
  if (errno != ENOENT) return absl::ErrnoToStatus(errno, path);
  if (getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size())) {
    return absl::ErrnoToStatus(errno, "no randomness for the handle key");
  }
  // Under its final name only when whole, so that a crash leaves no half a key.
  const std::string fresh = absl::StrCat(path, ".", getpid());
  fd.reset(open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd || write(fd.get(), key.data(), key.size()) != static_cast<ssize_t>(key.size()) ||
      fsync(fd.get()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", fresh));
  }
  const bool linked = link(fresh.c_str(), path.c_str()) == 0;
  const int error = errno;
  unlink(fresh.c_str());
  if (linked) return HandleCodec(key);
  if (error == EEXIST) return Load(state_dir);  // another server was first
  return absl::ErrnoToStatus(error, path);
}

void HandleCodec::Encode(uint32_t export_id, const FileId& id, std::string* handle) const {
  uint8_t out[kFixed + FileId::kMaxBytes + kChecksum];
  out[0] = kVersion;
  out[1] = id.size;
  Store(out + 2, id.type, 2);
  Store(out + 4, export_id, 4);
  Store(out + 8, id.fs, 8);
  std::memcpy(out + kFixed, id.bytes.data(), id.size);
  const size_t body = kFixed + id.size;
  Store(out + body, SipHash(key_, out, body), 8);
  handle->assign(reinterpret_cast<const char*>(out), body + kChecksum);
}

std::optional<FileId> HandleCodec::Decode(uint32_t export_id, std::string_view handle) const {
  const auto* in = reinterpret_cast<const uint8_t*>(handle.data());
  if (handle.size() < kFixed + kChecksum || in[0] != kVersion) return std::nullopt;
  FileId id;
  id.size = in[1];
  if (id.size > FileId::kMaxBytes || handle.size() != kFixed + id.size + kChecksum) {
    return std::nullopt;
  }
  const size_t body = kFixed + id.size;
  if (Load64(in + body) != SipHash(key_, in, body)) return std::nullopt;
  const uint64_t head = Load64(in);
  if (static_cast<uint32_t>(head >> 32) != export_id) return std::nullopt;
  id.type = static_cast<uint16_t>(head >> 16);
  id.fs = Load64(in + 8);
  std::memcpy(id.bytes.data(), in + kFixed, id.size);
  return id;
}

uint32_t HandleCodec::ExportId(std::string_view name) const {
  return static_cast<uint32_t>(SipHash({}, name.data(), name.size()));
}

}  // namespace tripwire::fs

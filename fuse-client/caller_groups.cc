// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/caller_groups.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <string>

namespace tripwire::fuse {
namespace {

// All of a status file. 64 KiB hold the 65536 groups of the worst caller only in
// part; what is needed of them comes early enough for 1000.
std::string ReadWhole(int fd) {
  char small[4096];
  const ssize_t n = pread(fd, small, sizeof(small), 0);
  if (n < 0) return {};
  if (static_cast<size_t>(n) < sizeof(small)) return std::string(small, n);
  std::string text(1 << 16, '\0');
  const ssize_t all = pread(fd, text.data(), text.size(), 0);
  text.resize(all < 0 ? 0 : static_cast<size_t>(all));
  return text;
}

}  // namespace

void CallerGroups::Parse(std::string_view status, std::vector<uint32_t>* groups) {
  groups->clear();
  const size_t at = status.find("\nGroups:");
  if (at == std::string_view::npos) return;
  status.remove_prefix(at + 8);
  const size_t end = status.find('\n');
  if (end != std::string_view::npos) status = status.substr(0, end);
  constexpr size_t kMostGroups = 1000;  // as many as a call carries
  const char* p = status.data();
  const char* const last = p + status.size();
  while (p < last && groups->size() < kMostGroups) {
    if (*p == ' ' || *p == '\t') {
      ++p;
      continue;
    }
    uint32_t group = 0;
    const auto [next, error] = std::from_chars(p, last, group);
    if (error != std::errc()) return;
    groups->push_back(group);
    p = next;
  }
}

void CallerGroups::Get(pid_t tid, std::vector<uint32_t>* groups) {
  groups->clear();
  if (tid <= 0) return;
  Slot& slot = slots_[static_cast<size_t>(tid) % kSlots];
  MutexLock lock(&slot.mu);
  if (slot.tid == tid && slot.fd) {
    const std::string text = ReadWhole(slot.fd.get());
    if (!text.empty()) {
      Parse(text, groups);
      return;
    }
  }
  char path[32];
  std::snprintf(path, sizeof(path), "/proc/%d/status", static_cast<int>(tid));
  slot.fd.reset(open(path, O_RDONLY | O_CLOEXEC));
  slot.tid = tid;
  if (slot.fd) Parse(ReadWhole(slot.fd.get()), groups);
}

}  // namespace tripwire::fuse

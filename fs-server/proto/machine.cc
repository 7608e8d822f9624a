// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/proto/machine.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <string>

namespace tripwire::fs {

uint64_t ThisMachine() {
  char id[64];
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t n = read(fd, id, sizeof id);
  close(fd);
  // A random UUID: sixty-odd bits of it will do.
  std::string digits;
  for (ssize_t i = 0; i < n && digits.size() < 16; ++i) {
    if (id[i] != '-') digits += id[i];
  }
  uint64_t machine = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), machine, 16);
  return machine;
}

}  // namespace tripwire::fs

// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/world.h"

#include <poll.h>
#include <time.h>

#include <algorithm>

namespace tripwire::conform {
namespace {

// Ports that cannot wake anybody are looked at this often; and even others, for
// their slow work.
constexpr uint64_t kBlindNs = 100 * kMicrosecond;
constexpr uint64_t kServiceNs = 50 * kMillisecond;

}  // namespace

void RealWorld::Wait(Port& port, uint64_t until_ns) {
  const uint64_t now_ns = NowNs();
  port.Service(now_ns);
  if (now_ns >= until_ns) return;
  uint64_t left_ns = std::min(until_ns - now_ns, kServiceNs);
  if (port.wake_fd() < 0) left_ns = std::min(left_ns, kBlindNs);
  if (!port.ArmWakeup()) return;
  pollfd fd{port.wake_fd(), POLLIN, 0};
  timespec timeout{static_cast<time_t>(left_ns / kSecond),
                   static_cast<long>(left_ns % kSecond)};
  ppoll(&fd, fd.fd < 0 ? 0 : 1, &timeout, nullptr);
  port.DisarmWakeup();
  if ((fd.revents & POLLIN) != 0) port.Service(NowNs());
}

}  // namespace tripwire::conform

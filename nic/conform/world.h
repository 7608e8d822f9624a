// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_WORLD_H_
#define TRIPWIRE_NIC_CONFORM_WORLD_H_

#include <cstdint>

#include "nic/base/clock.h"
#include "nic/port/port.h"

namespace tripwire::conform {

// How time passes for the suite, and how the NIC under test gets to act: by
// itself, elsewhere, in real time; or, in tests, in this thread and on a clock
// that jumps.
class World {
 public:
  virtual ~World() = default;
  virtual uint64_t NowNs() = 0;
  // Returns when a frame may have come to `port`, or at `until_ns`; it may
  // return early for no reason.
  virtual void Wait(Port& port, uint64_t until_ns) = 0;
  // How much later than it should a frame may be seen here: scheduling.
  virtual uint64_t SlackNs() const = 0;
};

// Real time: sleeps on the port.
class RealWorld final : public World {
 public:
  uint64_t NowNs() override { return clock_.NowNs(); }
  void Wait(Port& port, uint64_t until_ns) override;
  uint64_t SlackNs() const override { return 100 * kMillisecond; }

 private:
  SystemClock clock_;
};

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_WORLD_H_

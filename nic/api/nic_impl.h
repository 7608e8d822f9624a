// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_NIC_IMPL_H_
#define TRIPWIRE_NIC_API_NIC_IMPL_H_

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "nic/api/driver.h"
#include "nic/api/nic.h"
#include "nic/control/control.h"
#include "nic/datapath/engine.h"

namespace tripwire {

// What a Nic is made of. The order of members is the order of construction.
class Nic::Impl {
 public:
  Impl(NicOptions options, std::string node);

  Clock& clock() { return *clock_; }
  Engine& engine() { return engine_; }
  Control& control() { return control_; }
  Driver& driver() { return driver_; }
  std::unique_lock<AdaptiveMutex> Lock() {
    return std::unique_lock(driver_.mutex());
  }

 private:
  SystemClock system_clock_;
  Clock* clock_;
  Random random_;
  Engine engine_;
  Control control_;
  Driver driver_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_NIC_IMPL_H_

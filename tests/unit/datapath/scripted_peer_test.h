// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_DATAPATH_SCRIPTED_PEER_TEST_H_
#define TRIPWIRE_TESTS_UNIT_DATAPATH_SCRIPTED_PEER_TEST_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/unit/datapath/scripted_peer.h"

namespace tripwire {

// What the script says it exported, for the engine to write to and read from.
inline const ApertureName kTheirs{3, 1, uint64_t{1} << 40, Access::kAny};
inline const Bytes kWord(8, 0x42);

// An engine with 64 KiB exported to the script, over an open link.
class ScriptedPeerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(peer_.Connect());
    name_ = engine().Export(peer_.context(), memory_, Access::kAny,
                            std::nullopt);
    peer_.Take();
  }
  Engine& engine() { return peer_.engine(); }
  uint32_t Watch(uint64_t offset, uint64_t length) {
    return peer_.Watch(name_, offset, length, Access::kWrite);
  }

  std::vector<uint8_t> memory_ = std::vector<uint8_t>(1 << 16);
  ScriptedPeer peer_;
  ApertureName name_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_UNIT_DATAPATH_SCRIPTED_PEER_TEST_H_

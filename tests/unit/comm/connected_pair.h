// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_COMM_CONNECTED_PAIR_H_
#define TRIPWIRE_TESTS_UNIT_COMM_CONNECTED_PAIR_H_

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "nic/api/context.h"
#include "tests/unit/comm/test_wire.h"

namespace tripwire {

// Two contexts on two NICs, and a link between them.
struct ConnectedPair {
  ConnectedPair() {
    left_nic = wire.MakeNic(0, "left");
    right_nic = wire.MakeNic(1, "right");
    left = left_nic->CreateContext();
    right = right_nic->CreateContext();
    EXPECT_TRUE(right->Listen("test").ok());
    std::thread listener([this] {
      Event event;
      while (right->Wait({&event, 1}, Soon(*right_nic)) == 1) {
        if (event.kind != EventKind::kConnectRequest) continue;
        right_link = event.link;
        EXPECT_TRUE(right->Accept(right_link, {}).ok());
        return;
      }
      ADD_FAILURE() << "nobody asked for a link";
    });
    const auto link = left->Connect("right", "test", {}, 10 * kSecond);
    listener.join();
    EXPECT_TRUE(link.ok()) << link.status();
    if (link.ok()) left_link = *link;
  }
  // Long enough for anything that happens at all.
  static uint64_t Soon(Nic& nic) { return nic.clock().NowNs() + 60 * kSecond; }

  TestWire wire;
  std::unique_ptr<Nic> left_nic, right_nic;
  std::unique_ptr<Context> left, right;
  LinkId left_link, right_link;
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_UNIT_COMM_CONNECTED_PAIR_H_

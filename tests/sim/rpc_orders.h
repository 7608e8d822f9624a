// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_RPC_ORDERS_H_
#define TRIPWIRE_TESTS_SIM_RPC_ORDERS_H_

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "nic/base/clock.h"
#include "nic/comm/rpc.h"
#include "nic/port/faulty_port.h"

// Calls that say what they ask for, so that whoever serves or gets them knows
// what must be in them; what is kept of them; and what happens meanwhile.
namespace tripwire::rpc {

inline constexpr uint32_t kSlots = 6;
inline constexpr uint32_t kCalls = 300;  // of each client
inline constexpr uint32_t kMessageBytes = 3000;
inline constexpr uint32_t kBulkBytes = 20'000;

// What a call asks for, as it travels.
struct Order {
  uint32_t client = 0;
  uint32_t number = 0;
  uint8_t cached = 1;   // else it may run more than once
  uint8_t park = 0;     // answer later
  uint8_t reclaim = 0;  // part of a recovery
  uint8_t stubborn = 0;      // answer when it is time, cancelled or not
  uint32_t reply_bytes = 0;  // message
  uint32_t bulk_in = 0, bulk_out = 0;
};

inline uint8_t Pattern(uint32_t client, uint32_t number, size_t i) {
  return static_cast<uint8_t>(client * 17 + number * 31 + i * 7 + i / 251);
}

inline std::vector<uint8_t> PatternBytes(uint32_t client, uint32_t number,
                                         size_t n) {
  std::vector<uint8_t> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = Pattern(client, number, i);
  return bytes;
}

inline bool IsPattern(uint32_t client, uint32_t number, Bytes bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != Pattern(client, number, i)) return false;
  }
  return true;
}

using CallName = std::pair<uint32_t, uint32_t>;  // client, number

// What survives a crash of the server: which calls ran, and their answers.
struct Journal {
  struct Entry {
    uint64_t sequence = 0;
    std::vector<uint8_t> reply;
  };
  std::map<std::pair<uint64_t, uint32_t>, Entry> replies;  // session, slot
  std::map<CallName, int> runs;
  std::map<uint64_t, int> openings;  // of each session
  std::map<uint32_t, int> links;     // of each client, that were up
  // Where a call last ran: in which opening, on which link of its client.
  struct Place {
    int opening, link;
  };
  std::map<CallName, Place> ran_in;
};

struct Plan {
  FaultOptions faults;
  int cuts = 0;
  // Cuts last so long that the server forgets its sessions.
  bool forgets = false;
  int server_crashes = 0;
  bool client_crash = false;
  uint64_t propagation_ns = 1 * kMicrosecond;

  // Answers are asked for that the server's program must have stored.
  bool IsDurable() const { return forgets || server_crashes > 0; }
};

// How often a run came to where it matters that a call runs once.
// Calls that ran once and were answered once more, by what kept the answer.
struct Reached {
  int from_slot = 0;   // the session's slot, over a later link
  int given_back = 0;  // the server's program, in a later opening
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_TESTS_SIM_RPC_ORDERS_H_

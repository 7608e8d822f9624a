// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_MEMIF_LAYOUT_H_
#define TRIPWIRE_NIC_PORT_MEMIF_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "nic/base/wire_int.h"

// The shared memory packet interface (memif) 2.0, as spoken by VPP, libmemif
// and DPDK's net_memif. Only layout here.
//
// A server listens on a SOCK_SEQPACKET socket; each client that connects offers
// regions of memory (memfds) and rings in them:
//
//   server                      client
//     | <------- connect --------- |
//     | -------- HELLO ----------> |
//     | <------- INIT ------------ |   each answered with ACK
//     | <------- ADD_REGION + fd - |
//     | <------- ADD_RING + fd --- |   one each way; the fd is the doorbell
//     | <------- CONNECT --------- |
//     | -------- CONNECTED ------> |
//
// Integers are in the byte order of the host, which here is the same for both;
// every platform this runs on is little-endian.

namespace tripwire {

inline constexpr uint32_t kMemifCookie = 0x3E31F20;
inline constexpr uint16_t kMemifVersion = 0x0200;
inline constexpr size_t kMemifNameBytes = 32;

enum class MemifMessageType : uint16_t {
  kNone = 0,
  kAck = 1,
  kHello = 2,
  kInit = 3,
  kAddRegion = 4,
  kAddRing = 5,
  kConnect = 6,
  kConnected = 7,
  kDisconnect = 8,
};

struct MemifHello {  // server to client
  char name[kMemifNameBytes];
  Le16 min_version;
  Le16 max_version;
  Le16 max_region;  // highest index
  Le16 max_s2c_ring;
  Le16 max_c2s_ring;
  uint8_t max_log2_ring_size;
};

struct MemifInit {  // client to server, as are the next four
  Le16 version;
  Le32 id;
  uint8_t mode;  // 0: Ethernet
  char secret[24];
  char name[kMemifNameBytes];
};

struct MemifAddRegion {
  Le16 index;
  Le64 size_bytes;
};

inline constexpr uint16_t kMemifRingIsC2s = 1;  // MemifAddRing::flags

struct MemifAddRing {
  Le16 flags;
  Le16 index;
  Le16 region;
  Le32 offset;
  uint8_t log2_ring_size;
  Le16 private_header_bytes;
};

struct MemifConnect {  // both CONNECT and CONNECTED
  char name[kMemifNameBytes];
};

struct MemifDisconnect {
  Le32 code;
  char reason[96];
};

struct MemifMessage {
  Le16 type;
  uint8_t body[126];  // one of the above, then zeros
};

static_assert(sizeof(MemifHello) == 43 && alignof(MemifHello) == 1);
static_assert(sizeof(MemifInit) == 63 && offsetof(MemifInit, mode) == 6);
static_assert(sizeof(MemifAddRegion) == 10);
static_assert(sizeof(MemifAddRing) == 13 &&
              offsetof(MemifAddRing, log2_ring_size) == 10);
static_assert(sizeof(MemifDisconnect) == 100);
static_assert(sizeof(MemifMessage) == 128);

// One ring, in shared memory. For a ring from client to server (C2S), the
// client fills slots and advances head, the server empties them and advances
// tail. For S2C the client advances head to offer empty buffers, the server
// fills them and advances tail. Indices run freely modulo 2^16.
struct MemifRing {
  uint32_t cookie;
  uint16_t flags;  // kMemifMaskDoorbell: set by a consumer that polls
  uint16_t head;
  uint8_t padding0[56];
  uint16_t tail;
  uint8_t padding1[62];
};
static_assert(sizeof(MemifRing) == 128 && offsetof(MemifRing, flags) == 4 &&
              offsetof(MemifRing, head) == 6 &&
              offsetof(MemifRing, tail) == 64);

inline constexpr uint16_t kMemifMaskDoorbell = 1;  // MemifRing::flags
inline constexpr uint16_t kMemifChained = 1;       // MemifDescriptor::flags

// The descriptors follow their ring, one to a slot. In shared memory a
// descriptor is two 64-bit words, so that each is read and written at once.
struct MemifDescriptor {
  uint16_t flags;
  uint16_t region;
  uint32_t length_bytes;
  uint32_t offset;
  uint32_t metadata;
};
static_assert(sizeof(MemifDescriptor) == 16);

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_MEMIF_LAYOUT_H_

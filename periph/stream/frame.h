// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_STREAM_FRAME_H_
#define TRIPWIRE_PERIPH_STREAM_FRAME_H_

#include <cstdint>
#include <memory>
#include <span>

#include "periph/stream/layout.h"

namespace tripwire::periph {

enum FrameFlag : uint32_t {
  kDiscontinuity =
      1,          // something is missing before it, or the source began anew
  kKeyFrame = 2,  // can be understood without those before it
};

// One frame on its way out: a picture, a stretch of sound, a piece of a byte
// stream. The bytes stay as they are while anybody holds `owner`.
struct Frame {
  std::span<const uint8_t> data;
  std::shared_ptr<const void>
      owner;  // null: `data` is good only during the call

  uint64_t capture_ns = 0;  // on the NIC's clock
  uint64_t pts_ns = kNoTime;
  uint64_t duration_ns = kNoTime;
  uint32_t flags = 0;
  // At the source, from 0. Frames that the source lost have numbers too, so
  // that whoever gets this one can account for all that are missing before it.
  uint64_t number = 0;
  uint64_t overrun = 0;  // frames the source lost before this one, in all
};

// What a feeder does with a frame that finds no free slot in the consumer's
// ring.
enum class Policy : uint8_t {
  kBlock,       // nothing is lost: the source waits
  kDropOldest,  // frames wait in a queue; when that is full its oldest goes
  kDropNewest,  // ... the new one goes
  kLatest,  // as kDropOldest with a queue of one: the next free slot gets the
            // newest
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_STREAM_FRAME_H_

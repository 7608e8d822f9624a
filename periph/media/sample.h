// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_MEDIA_SAMPLE_H_
#define TRIPWIRE_PERIPH_MEDIA_SAMPLE_H_

#include "absl/status/statusor.h"
#include "periph/media/gst_ptr.h"
#include "periph/stream/frame.h"

namespace tripwire::periph {

// A buffer as a frame: its bytes where they are, held by the frame's owner;
// without capture time. Pictures whose lines are padded otherwise than `caps`
// says are copied into shape. INTERNAL if the memory cannot be mapped.
absl::StatusOr<Frame> FrameOfBuffer(GstBuffer* buffer, const GstCaps* caps);

// The other way: a buffer around the frame's bytes, which it holds if the frame
// has an owner and else copies. With pts and duration.
BufferRef BufferOfFrame(const Frame& frame);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_MEDIA_SAMPLE_H_

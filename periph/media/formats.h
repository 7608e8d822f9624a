// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_MEDIA_FORMATS_H_
#define TRIPWIRE_PERIPH_MEDIA_FORMATS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "periph/device/device.h"
#include "periph/media/gst_ptr.h"

// Formats (strings, as everywhere in periph) and GStreamer's caps.
namespace tripwire::periph {

// "" is any. INVALID_ARGUMENT if it is not a format.
absl::StatusOr<CapsRef> CapsOfFormat(const std::string& format);
// Short, without the types where they are clear: "video/x-raw, format=I420,
// width=320". Null or ANY is a byte stream.
std::string FormatOfCaps(const GstCaps* caps);
// One format for each structure that lies in ordinary memory.
std::vector<std::string> FormatsOfCaps(const GstCaps* caps);

// What both admit; in the order of `first`.
CapsRef Intersect(const GstCaps* first, const GstCaps* second);

// What of it lies in ordinary memory.
CapsRef InOrdinaryMemory(const GstCaps* caps);

bool IsByteStream(const GstCaps* caps);
// Whether all of it is raw video (or audio) in ordinary memory.
bool IsRawVideo(const GstCaps* caps);
bool IsRawAudio(const GstCaps* caps);
// Whether some of it is.
bool HasRaw(const GstCaps* caps, const char* media_type);
// The one of `media_type`, without memory features; may be empty.
CapsRef OnlyRaw(const GstCaps* caps, const char* media_type);

// Makes one exact format of it: where there is a choice, 640x480 at 30 frames
// per second, 48 kHz stereo of 16 bits, or what is nearest. REQUIRES: not
// empty.
CapsRef Fixate(CapsRef caps);

// How large a frame can be: exact for raw video; else a guess from the first.
uint64_t LikelyFrameBytes(const GstCaps* caps, uint64_t first_bytes);

// What converts raw data from `have` to `want`, as a launch line; "" for none
// needed.
std::string ConverterLine(const GstCaps* have, const GstCaps* want);

// An error on a bus as a status: one line that begins with the element's name.
absl::Status StatusOfError(GstMessage* message);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_MEDIA_FORMATS_H_

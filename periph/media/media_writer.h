// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_MEDIA_MEDIA_WRITER_H_
#define TRIPWIRE_PERIPH_MEDIA_MEDIA_WRITER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "periph/device/device.h"

// Frames into files, pipes and windows; users need not know GStreamer.
namespace tripwire::periph {

// Where bytes go. False: nobody reads them any more, which is no error.
using TakeBytes = std::function<absl::StatusOr<bool>(std::span<const uint8_t>)>;

// Raw video as Y4M, raw sound as WAV, anything else as its bytes. `format` as a
// FrameStream has it. `take` is called on another thread. After it said false
// or failed, Put and Drain return CANCELLED, or what it failed with.
absl::StatusOr<std::unique_ptr<Sink>> WriteToBytes(const std::string& format,
                                                   TakeBytes take);

// To a file, by its suffix: .y4m, .avi, .mkv, .webm (video); .wav, .flac, .ogg
// (sound); .png, .jpg (one picture: the first; or with a '%d' for a number in
// the name, each a file of its own); else the bytes as they are. Drain makes
// the file whole. INVALID_ARGUMENT if the suffix is not for such a format.
absl::StatusOr<std::unique_ptr<Sink>> WriteToFile(const std::string& format,
                                                  const std::string& path);

// Whether a file of this name takes one frame only.
bool TakesOnePicture(const std::string& path);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_MEDIA_MEDIA_WRITER_H_

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SYSTEM_PICTURE_PICTURE_H_
#define TRIPWIRE_TESTS_SYSTEM_PICTURE_PICTURE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

// A picture that says in its own pixels which frame it is and when it was
// taken, so that a machine sees what was lost, torn or late from what arrived.
//
// Three stamps, at the top, in the middle and at the bottom of the brightness
// plane, each of 160 squares of 8 by 8 pixels in rows of width/8: bright is
// one, dark is zero; 64 bits of number, 64 of time, 32 of check sum, lowest
// first. Squares survive a change of the pixels' format. The picture is at
// least 160 wide and 192 high.
namespace tripwire::picture {

struct Stamp {
  uint64_t number = 0;
  uint64_t time_ns = 0;  // CLOCK_MONOTONIC
};

// Brightness plane first, `width` bytes a line: as in I420 and GRAY8.
void Draw(const Stamp& stamp, uint32_t width, uint32_t height,
          std::span<uint8_t> pixels);

enum class Seen : uint8_t { kWhole, kTorn, kUnreadable };
// kTorn: the stamps are of different frames. `stamp` is of the topmost that can
// be read.
Seen Read(std::span<const uint8_t> pixels, uint32_t width, uint32_t height,
          Stamp* stamp);

// What a row of pictures has told.
class Tally {
 public:
  // The latencies of the first `untimed` pictures are left out.
  explicit Tally(uint64_t untimed = 0) : untimed_(untimed) {}
  void Add(Seen seen, const Stamp& stamp, uint64_t now_ns);
  // One "key=value" a line: frames, torn, unreadable, first, last, missing
  // (numbers between first and last that did not come), backwards, and
  // latencies in microseconds.
  std::string Report() const;
  uint64_t frames() const { return frames_; }

 private:
  uint64_t untimed_;
  uint64_t frames_ = 0, torn_ = 0, unreadable_ = 0, backwards_ = 0;
  uint64_t first_ = 0, last_ = 0;
  std::vector<uint64_t> latencies_ns_;
};

}  // namespace tripwire::picture

#endif  // TRIPWIRE_TESTS_SYSTEM_PICTURE_PICTURE_H_

// SPDX-License-Identifier: BSD-3-Clause
// The test picture's own test: what it says is read, and what is wrong is seen.
#include "tests/system/picture/picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace tripwire::picture {
namespace {

using testing::HasSubstr;

std::vector<uint8_t> Drawn(const Stamp& stamp, uint32_t width,
                           uint32_t height) {
  std::vector<uint8_t> pixels(size_t{width} * height * 3 / 2, 77);
  Draw(stamp, width, height, pixels);
  return pixels;
}

TEST(PictureTest, WhatIsDrawnIsRead) {
  for (const auto& [width, height] :
       {std::pair{160u, 192u}, {320u, 240u}, {1920u, 1080u}}) {
    const Stamp drawn{0x0123456789abcdef, UINT64_MAX - 12345};
    Stamp read;
    EXPECT_EQ(Read(Drawn(drawn, width, height), width, height, &read),
              Seen::kWhole);
    EXPECT_EQ(read.number, drawn.number);
    EXPECT_EQ(read.time_ns, drawn.time_ns);
  }
}

TEST(PictureTest, AChangeOfBrightnessDoesNotMatter) {
  std::vector<uint8_t> pixels = Drawn({42, 43}, 320, 240);
  for (uint8_t& pixel : pixels)
    pixel = static_cast<uint8_t>(16 + pixel * 219 / 255);
  Stamp read;
  EXPECT_EQ(Read(pixels, 320, 240, &read), Seen::kWhole);
  EXPECT_EQ(read.number, 42u);
}

TEST(PictureTest, TwoHalvesOfDifferentFramesAreTorn) {
  const std::vector<uint8_t> one = Drawn({1, 10}, 320, 240),
                             two = Drawn({2, 20}, 320, 240);
  for (size_t cut = 320 * 8; cut < 320 * 236; cut += 320 * 4) {
    std::vector<uint8_t> torn = one;
    std::copy(two.begin() + static_cast<ptrdiff_t>(cut), two.end(),
              torn.begin() + static_cast<ptrdiff_t>(cut));
    Stamp read;
    EXPECT_EQ(Read(torn, 320, 240, &read), Seen::kTorn) << cut;
  }
}

TEST(PictureTest, OtherPicturesAreUnreadable) {
  Stamp read;
  const std::vector<uint8_t> grey(320 * 240, 128);
  EXPECT_EQ(Read(grey, 320, 240, &read), Seen::kUnreadable);
  EXPECT_EQ(Read({grey.data(), 100}, 320, 240, &read), Seen::kUnreadable);
  EXPECT_EQ(Read(grey, 0, 240, &read), Seen::kUnreadable);
}

TEST(PictureTest, TheTallyCountsWhatIsMissing) {
  Tally tally;
  for (const uint64_t number : {5, 6, 9, 10, 8})
    tally.Add(Seen::kWhole, {number, 1000}, 4000);
  tally.Add(Seen::kTorn, {11, 1000}, 2'001'000);
  tally.Add(Seen::kUnreadable, {}, 0);
  const std::string report = tally.Report();
  EXPECT_THAT(
      report,
      HasSubstr(
          "frames=6\ntorn=1\nunreadable=1\nfirst=5\nlast=11\nmissing=1\n"));
  EXPECT_THAT(report, HasSubstr("backwards=1\np50_us=3\n"));
  EXPECT_THAT(report, HasSubstr("max_us=2000\n"));
}

TEST(PictureTest, TheFirstPicturesCountButAreNotTimed) {
  Tally tally(2);
  for (const uint64_t number : {1, 2, 3})
    tally.Add(Seen::kWhole, {number, 0}, number == 3 ? 3000 : 9000);
  EXPECT_THAT(tally.Report(), HasSubstr("frames=3\n"));
  EXPECT_THAT(tally.Report(), HasSubstr("max_us=3\n"));
}

}  // namespace
}  // namespace tripwire::picture

// SPDX-License-Identifier: BSD-3-Clause
// tw-picture-check: reads test pictures as Y4M, from standard input or a file,
// and reports what came: `tw-periph cat NODE:camera | tw-picture-check`.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "nic/base/clock.h"
#include "tests/system/picture/picture.h"

namespace {

// The number after `letter` in a header such as "YUV4MPEG2 W640 H480 F30:1".
uint32_t Field(const std::string& header, char letter) {
  const size_t at = header.find(std::string(" ") + letter);
  return at == std::string::npos ? 0
                                 : static_cast<uint32_t>(std::strtoul(
                                       header.c_str() + at + 2, nullptr, 10));
}

std::string Line(std::FILE* in) {
  std::string line;
  for (int c; (c = std::fgetc(in)) != EOF && c != '\n' && line.size() < 1000;) {
    line.push_back(static_cast<char>(c));
  }
  return line;
}

}  // namespace

int main(int argc, char** argv) {
  std::FILE* in = argc > 1 ? std::fopen(argv[1], "rb") : stdin;
  if (in == nullptr) return 2;
  const std::string header = Line(in);
  const uint32_t width = Field(header, 'W'), height = Field(header, 'H');
  if (header.rfind("YUV4MPEG2 ", 0) != 0 || width == 0 || height == 0 ||
      width > 8192 || height > 8192) {
    std::cerr << "not Y4M: '" << header << "'\n";
    return 2;
  }
  tripwire::SystemClock clock;
  tripwire::picture::Tally tally;
  std::vector<uint8_t> picture(size_t{width} * height * 3 / 2);
  while (Line(in).rfind("FRAME", 0) == 0) {
    if (std::fread(picture.data(), 1, picture.size(), in) != picture.size())
      break;
    tripwire::picture::Stamp stamp;
    const auto seen = tripwire::picture::Read(picture, width, height, &stamp);
    tally.Add(seen, stamp, clock.NowNs());
  }
  std::cout << tally.Report();
  return 0;
}

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PORT_PCAPNG_H_
#define TRIPWIRE_TESTS_UNIT_PORT_PCAPNG_H_

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

// Reads a pcapng file by the letter of the format, block by block.
namespace tripwire::testing {

struct CapturedFrame {
  uint64_t time_ns = 0;
  bool is_outbound = false;
  std::vector<uint8_t> bytes;
};

struct Capture {
  std::string interface;
  uint64_t seen = 0, dropped = 0;  // from the statistics, if there are any
  bool has_statistics = false;
  std::vector<CapturedFrame> frames;
};

class PcapngReader {
 public:
  explicit PcapngReader(std::string bytes) : bytes_(std::move(bytes)) {}

  // Throws where the format is broken. A block cut short at the end is not
  // read (a file may be followed while it grows).
  Capture Read() {
    while (at_ + 12 <= bytes_.size()) {
      const size_t begin = at_;
      const auto type = Take<uint32_t>();
      const auto length = Take<uint32_t>();
      if (length % 4 != 0 || length < 12) throw std::runtime_error("length");
      if (length > bytes_.size() - begin) break;
      end_ = begin + length - 4;
      ReadBlock(type);
      at_ = end_;
      if (Take<uint32_t>() != length) throw std::runtime_error("last length");
    }
    return std::move(capture_);
  }

 private:
  using Options = std::map<uint16_t, std::string>;

  template <typename T>
  T Take() {
    T value;
    if (at_ + sizeof value > bytes_.size()) throw std::runtime_error("short");
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::string TakeBytes(size_t n) {
    if (n > end_ - at_) throw std::runtime_error("short");
    std::string bytes = bytes_.substr(at_, n);
    at_ += (n + 3) & ~size_t{3};
    return bytes;
  }
  uint64_t TakeTime() {
    const uint64_t high = Take<uint32_t>();
    return high << 32 | Take<uint32_t>();
  }
  Options TakeOptions() {
    Options options;
    while (at_ < end_) {
      const auto code = Take<uint16_t>();
      const auto length = Take<uint16_t>();
      if (code == 0) return options;
      options[code] = TakeBytes(length);
    }
    return options;
  }
  template <typename T>
  static T Number(const std::string& bytes) {
    T value;
    if (bytes.size() != sizeof value) throw std::runtime_error("option");
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }

  void ReadBlock(uint32_t type) {
    if (type == 0x0a0d0d0a) {
      if (Take<uint32_t>() != 0x1a2b3c4d) throw std::runtime_error("order");
    } else if (type == 1) {
      if (Take<uint16_t>() != 1) throw std::runtime_error("not Ethernet");
      Take<uint16_t>();
      if (Take<uint32_t>() != 0) throw std::runtime_error("frames are cut");
      Options options = TakeOptions();
      capture_.interface = options[2];
      if (options[9] != "\x09") throw std::runtime_error("not nanoseconds");
    } else if (type == 6) {
      CapturedFrame frame;
      if (Take<uint32_t>() != 0) throw std::runtime_error("interface");
      frame.time_ns = TakeTime();
      const auto length = Take<uint32_t>();
      if (Take<uint32_t>() != length) throw std::runtime_error("cut");
      const std::string bytes = TakeBytes(length);
      frame.bytes.assign(bytes.begin(), bytes.end());
      const uint32_t flags = Number<uint32_t>(TakeOptions()[2]);
      if ((flags & 3) != 1 && (flags & 3) != 2) throw std::runtime_error("way");
      frame.is_outbound = (flags & 3) == 2;
      capture_.frames.push_back(std::move(frame));
    } else if (type == 5) {
      at_ += 12;
      Options options = TakeOptions();
      capture_.seen = Number<uint64_t>(options[4]);
      capture_.dropped = Number<uint64_t>(options[5]);
      capture_.has_statistics = true;
    } else {
      throw std::runtime_error("unknown block");
    }
  }

  const std::string bytes_;
  size_t at_ = 0, end_ = 0;
  Capture capture_;
};

inline Capture ReadCapture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return PcapngReader(std::string(std::istreambuf_iterator<char>(file), {}))
      .Read();
}

}  // namespace tripwire::testing

#endif  // TRIPWIRE_TESTS_UNIT_PORT_PCAPNG_H_

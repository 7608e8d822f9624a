// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_BODY_H_
#define TRIPWIRE_NIC_CONFORM_BODY_H_

#include <map>
#include <string>
#include <vector>

#include "nic/conform/frame.h"

namespace tripwire::conform {

// The bodies of frames outside links are protobuf. Written by hand, field by
// field, so that a test can leave fields out, repeat them or add unknown ones.
class BodyWriter {
 public:
  BodyWriter& Fixed32(int field, uint32_t value);
  BodyWriter& Varint(int field, uint64_t value);
  BodyWriter& String(int field, std::span<const uint8_t> value);
  BodyWriter& String(int field, std::string_view value);
  operator Bytes() const { return out_; }  // NOLINT: implicit by intent

 private:
  void Tag(int field, int wire_type);
  void PutVarint(uint64_t value);
  Out out_;
};

// A body taken apart. Of fields that occur more than once, numbers keep the
// last value, strings all.
struct Body {
  std::map<int, uint64_t> numbers;
  std::map<int, std::vector<std::string>> strings;

  uint64_t Number(int field) const {
    const auto it = numbers.find(field);
    return it == numbers.end() ? 0 : it->second;
  }
  std::string String(int field) const {
    const auto it = strings.find(field);
    return it == strings.end() ? "" : it->second.back();
  }
};
bool ParseBody(std::span<const uint8_t> bytes, Body* body);

// Field numbers, from docs/wire-format.md.
namespace field {
inline constexpr int kDiscoverNode = 1, kDiscoverService = 2,
                     kDiscoverToken = 3;
inline constexpr int kAnnounceNode = 1, kAnnounceServices = 2,
                     kAnnounceToken = 3;
inline constexpr int kConnectLink = 1, kConnectEpoch = 2, kConnectService = 3,
                     kConnectNode = 4, kConnectData = 5, kConnectFrameBytes = 6,
                     kConnectChecksum = 7, kConnectFeatures = 8;
inline constexpr int kAcceptLink = 1, kAcceptEpoch = 2, kAcceptNode = 3,
                     kAcceptData = 4, kAcceptFrameBytes = 5,
                     kAcceptChecksum = 6, kAcceptFeatures = 7;
inline constexpr int kRejectReason = 1;
}  // namespace field

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_BODY_H_

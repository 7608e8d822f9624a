// SPDX-License-Identifier: BSD-3-Clause
// Any bytes into the one gate for received frames.
#include <memory>

#include "nic/wire/parse.h"
#include "tests/fuzz/bytes.h"

using namespace tripwire;  // NOLINT: a fuzzer's main file

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // The fuzzer cannot guess a checksum: on demand, it is made right.
  std::vector<uint8_t> frame(data, data + size);
  if (size >= wire::kHeaderBytes + 4 && (data[0] & 1) != 0) {
    std::memcpy(frame.data() + 12, wire::kEtherType, 2);
    const auto* header =
        reinterpret_cast<const wire::FrameHeader*>(frame.data() + 14);
    const size_t length = header->length.get();
    if (length <= size - wire::kHeaderBytes - 4) {
      Le32 crc = wire::Crc32c(
          {frame.data() + 14, sizeof(wire::FrameHeader) + length});
      std::memcpy(frame.data() + wire::kHeaderBytes + length, &crc, 4);
    }
  }
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[size]);
  if (size > 0) std::memcpy(exact.get(), frame.data(), size);
  wire::FrameView view;
  if (wire::Parse({exact.get(), size}, &view) != wire::ParseResult::kOk) {
    return 0;
  }
  fuzz::Require(view.header->version == wire::kVersion, "the version is ours");
  fuzz::Require(view.payload.data() == exact.get() + wire::kHeaderBytes,
                "the payload follows the header");
  fuzz::Require(view.payload.size() == view.header->length.get() &&
                    view.payload.size() + wire::kHeaderBytes <= size,
                "the payload lies in the frame");
  // What was taken can be said again.
  std::vector<uint8_t> again(view.payload.size() + wire::kHeaderBytes + 64);
  std::memcpy(again.data(), exact.get(),
              wire::kHeaderBytes + view.payload.size());
  again.resize(wire::Seal(again.data(), view.payload.size(),
                          view.has(wire::kChecksummed)));
  fuzz::Require(wire::Parse(again, &view) == wire::ParseResult::kOk,
                "a sealed frame parses");
  return 0;
}

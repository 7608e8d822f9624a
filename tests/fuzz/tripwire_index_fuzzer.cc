// SPDX-License-Identifier: BSD-3-Clause
// The tripwire index against the obvious list, for any history.
#include <map>

#include "nic/datapath/tripwire_table.h"
#include "tests/fuzz/bytes.h"

using namespace tripwire;  // NOLINT: a fuzzer's main file

namespace {

constexpr uint64_t kSize = (uint64_t{4} << 30) + 12345;

struct Range {
  uint64_t offset, length;
};

Range TakeRange(fuzz::Script& script) {
  const uint8_t shape = script.Take();
  uint64_t length = script.Take<uint16_t>();
  length <<= shape % 17;
  length = std::clamp<uint64_t>(length, 1, kSize);
  uint64_t offset = script.Take<uint32_t>();
  if ((shape & 0x40) != 0) offset = offset / 64 * 64;
  if ((shape & 0x80) != 0) offset = kSize - length - offset % 64;
  return {std::min(offset, kSize - length), length};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Script script(data, size);
  TripwireIndex index;
  std::map<uint32_t, Range> model;
  uint32_t next = 0;
  while (!script.ended()) {
    const uint8_t what = script.Take();
    if (what % 4 == 0) {
      const Range range = TakeRange(script);
      index.Insert(next, range.offset, range.length);
      model[next++] = range;
    } else if (what % 4 == 1 && !model.empty()) {
      auto it = model.lower_bound(script.Take() % next);
      if (it == model.end()) it = model.begin();
      index.Erase(it->first, it->second.offset, it->second.length);
      model.erase(it);
    } else {
      const Range access = TakeRange(script);
      std::map<uint32_t, int> found;
      index.Visit(access.offset, access.length,
                  [&](uint32_t id) { ++found[id]; });
      for (const auto& [id, range] : model) {
        const bool hit = range.offset < access.offset + access.length &&
                         access.offset < range.offset + range.length;
        const auto it = found.find(id);
        fuzz::Require((it == found.end() ? 0 : it->second) == (hit ? 1 : 0),
                      "each overlapping watch is visited once, no other");
        if (it != found.end()) found.erase(it);
      }
      fuzz::Require(found.empty(), "no removed watch is visited");
    }
    fuzz::Require(index.empty() == model.empty(), "empty means empty");
  }
  return 0;
}

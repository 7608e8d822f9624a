// SPDX-License-Identifier: BSD-3-Clause
// Many of everything.
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

void ManyTripwires(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(64 * 1024);
  std::vector<uint32_t> watches;
  for (uint64_t i = 0; i < 1000; ++i) {
    watches.push_back(t.nic.Watch(t.context(), aperture, i * 64, 8));
    t.nic.Arm(watches.back());
  }
  for (uint64_t i = 0; i < 1000; i += 3) {
    peer.Say(type::kWrite, WriteBody(aperture.name, i * 64, Word(i)));
    if (i % 300 == 0) t.Need(peer.Flush(), "M20", "the link does not go on");
  }
  t.Need(peer.Flush(), "M20", "the link does not go on");
  for (uint64_t i = 0; i < 1000; i += 17) {
    t.Equal(t.nic.Count(watches[i]), i % 3 == 0, "M20",
            absl::StrFormat("firings of tripwire %u of 1000", i));
  }
  uint64_t events = 0;
  for (;;) {
    const auto told = t.nic.Events(t.context(), 512);
    if (told.empty()) break;
    events += told.size();
  }
  t.Equal(events, 334, "M22", "events of 334 tripwires that fired once each");
}

void ManyLinks(Test& t) {
  const Exported aperture = t.Export(4096);
  std::vector<Peer*> peers;
  for (uint64_t i = 0; i < 64; ++i) peers.push_back(&t.Open());
  for (uint64_t i = 0; i < peers.size(); ++i) {
    peers[i]->Say(type::kWrite, WriteBody(aperture.name, i * 8, Word(i + 1)));
  }
  for (uint64_t i = 0; i < peers.size(); ++i) {
    t.Need(peers[i]->Flush(), "W15", "one of many links does not go on");
    t.Equal(t.nic.PeekWord(aperture, i * 8), i + 1, "W15",
            "the word one of many links wrote");
  }
}

void BeyondFourGib(Test& t) {
  constexpr uint64_t kSize = (uint64_t{1} << 32) + 65536;
  const Exported aperture = t.Export(kSize);
  Peer& peer = t.Open();
  for (const uint64_t offset :
       {(uint64_t{1} << 32) - 4, uint64_t{1} << 32, kSize - 8, uint64_t{8}}) {
    const Bytes data = Pattern(8, static_cast<uint8_t>(offset >> 20));
    t.CheckStatus(peer.Write(aperture.name, offset, data), status::kOk, "M1",
                  absl::StrFormat("a write at %u of %u", offset, kSize));
    t.Check(t.nic.Peek(aperture, offset, 8) == data, "M9",
            absl::StrFormat("the bytes at %u", offset));
  }
  t.CheckStatus(peer.Write(aperture.name, kSize - 7, Pattern(8)),
                status::kOutOfBounds, "M1", "a write across the end");
  t.Check(t.nic.PeekWord(aperture, 0) == 0, "M38",
          "an offset beyond 4 GiB reached the beginning");
  const uint32_t watch =
      t.nic.Watch(t.context(), aperture, uint64_t{1} << 32, 8);
  t.nic.Arm(watch);
  peer.Write(aperture.name, 0, Pattern(8));
  t.Equal(t.nic.Count(watch), 0, "M20", "firings by a write 4 GiB below");
  peer.Write(aperture.name, (uint64_t{1} << 32) + 4, Pattern(8));
  t.Equal(t.nic.Count(watch), 1, "M20", "firings by a write there");
}

}  // namespace

std::vector<TestCase> ScaleTests() {
  return {
      {"scale.many-tripwires", Tier::kFull, {"M20", "M22"}, ManyTripwires},
      {"scale.many-links", Tier::kFull, {"W15"}, ManyLinks},
      {"scale.beyond-4-gib",
       Tier::kFull,
       {"M38", "M1", "M9", "M20"},
       BeyondFourGib},
  };
}

}  // namespace tripwire::conform

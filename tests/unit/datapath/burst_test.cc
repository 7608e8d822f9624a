// SPDX-License-Identifier: BSD-3-Clause
// Frames that come in a burst do what they do when each comes alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "tests/unit/datapath/scripted_peer.h"

namespace tripwire {
namespace {

constexpr size_t kBytes = 1 << 14;

// One engine with memory, watched all over, and a record of what came of it.
class Side {
 public:
  // With `long_too`, or only such watches as a table of short ones has.
  explicit Side(bool long_too) : memory_(kBytes) {
    if (!peer_.Connect()) std::abort();
    name_ = peer_.engine().Export(peer_.context(), memory_, Access::kWrite,
                                  std::nullopt);
    // More than a handful, of every length, some across the granules of a
    // table.
    for (uint64_t offset = 0; offset + 5000 < kBytes; offset += 61) {
      for (const uint64_t length : {1, 8, 64, 300}) {
        if (length > 64 && !long_too) continue;
        if ((offset / 61 + length) % 3 == 0) Watch(offset, length);
      }
    }
    peer_.Take();
  }

  ScriptedPeer& peer() { return peer_; }
  const ApertureName& name() const { return name_; }
  const std::vector<uint8_t>& memory() const { return memory_; }
  std::vector<uint64_t> Counts() {
    std::vector<uint64_t> counts;
    for (const uint32_t id : tripwires_) {
      counts.push_back(peer_.engine().tripwire(id).count);
    }
    return counts;
  }
  uint64_t expected() {
    return peer_.engine().FindLink(peer_.link())->expected;
  }
  // Which operations were refused, and why.
  std::set<std::pair<uint32_t, int>> Refusals() {
    std::set<std::pair<uint32_t, int>> refusals;
    for (const Bytes& frame : peer_.Take(wire::kOpError)) {
      const wire::FrameView view = ScriptedPeer::View(frame);
      const auto& body = view.body<wire::OpErrorPayload>();
      refusals.insert({body.operation.get(), body.status});
    }
    return refusals;
  }

 private:
  void Watch(uint64_t offset, uint64_t length) {
    tripwires_.push_back(peer_.Watch(name_, offset, length, Access::kWrite));
  }

  std::vector<uint8_t> memory_;
  ScriptedPeer peer_;
  ApertureName name_;
  std::vector<uint32_t> tripwires_;
};

// A write, usually well meant.
struct Write {
  ApertureName to;
  uint64_t offset;
  Bytes data;
  uint16_t flags;
};

Write RandomWrite(std::mt19937& random, const ApertureName& name) {
  Write write{name, random() % kBytes,
              Bytes(random() % 4 == 0 ? random() % 900 : 8), wire::kLast};
  for (uint8_t& byte : write.data) byte = static_cast<uint8_t>(random());
  if (random() % 3 != 0) write.offset = write.offset / 8 * 8;
  switch (random() % 24) {
    case 0:
      write.to.handle += 1;
      break;
    case 1:
      write.to.generation += 1;
      break;
    case 2:
      write.offset = kBytes - 4;
      break;
    case 3:
    case 4:
      write.flags = 0;
      break;  // more of the operation follows
    case 5:
      write.flags |= wire::kAckRequested;
      break;
    default:
      break;
  }
  return write;
}

// A frame that nobody is to heed, though it goes on as the last one did.
Bytes Noise(unsigned kind, ScriptedPeer& peer, const ApertureName& name) {
  wire::FrameHeader header = peer.Header(wire::kWrite);
  const Bytes body = WriteBody(name, 8, Bytes(8, 0xee));
  if (kind == 0) header.epoch = peer.epoch() + 1;
  if (kind == 1) header.link = peer.link().value + 1;
  if (kind == 2) header.acknowledged = header.acknowledged.get() + 100;
  Bytes frame = peer.Frame(header, body);
  if (kind == 3) frame[0] ^= 4;   // for somebody else
  if (kind == 4) frame[11] ^= 4;  // from somebody else
  if (kind == 5) frame[12] ^= 4;  // of another protocol
  return frame;
}

TEST(BurstTest, DoesWhatItsFramesDoAlone) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Side alone(seed % 2 == 0), together(seed % 2 == 0);
    std::vector<Bytes> burst;
    std::set<std::pair<uint32_t, int>> refused_alone, refused_together;
    const auto deliver = [&] {
      // Some twice, some out of their turn.
      if (burst.size() > 1 && random() % 3 == 0) {
        std::swap(burst[random() % burst.size()],
                  burst[random() % burst.size()]);
      }
      if (!burst.empty() && random() % 3 == 0)
        burst.push_back(burst[random() % burst.size()]);
      for (const Bytes& frame : burst) together.peer().Throw(frame);
      burst.clear();
      together.peer().Run();
      refused_together.merge(together.Refusals());
    };
    for (int i = 0; i < 400; ++i) {
      const Write write = RandomWrite(random, alone.name());
      const auto say = [&](Side& side) {
        wire::FrameHeader header = side.peer().Header(wire::kWrite);
        header.flags = write.flags;
        Bytes frame = side.peer().Frame(
            header, WriteBody(write.to, write.offset, write.data));
        side.peer().set_sequence(side.peer().sequence() + 1);
        return frame;
      };
      if (random() % 16 == 0) {
        const unsigned kind = random() % 6;
        alone.peer().Send(Noise(kind, alone.peer(), alone.name()));
        burst.push_back(Noise(kind, together.peer(), together.name()));
      }
      alone.peer().Send(say(alone));
      refused_alone.merge(alone.Refusals());
      burst.push_back(say(together));
      if (burst.size() == 80 || random() % 40 == 0) deliver();
    }
    deliver();
    ASSERT_EQ(alone.expected(), alone.peer().sequence());
    ASSERT_EQ(together.expected(), together.peer().sequence());
    ASSERT_EQ(alone.memory(), together.memory());
    ASSERT_EQ(alone.Counts(), together.Counts());
    ASSERT_EQ(refused_alone, refused_together);
    ASSERT_FALSE(refused_alone.empty());
    ASSERT_EQ(alone.peer().counters().writes,
              together.peer().counters().writes);
  }
}

}  // namespace
}  // namespace tripwire

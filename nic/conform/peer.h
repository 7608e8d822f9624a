// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_PEER_H_
#define TRIPWIRE_NIC_CONFORM_PEER_H_

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "nic/conform/body.h"
#include "nic/conform/segment.h"

namespace tripwire::conform {

// How long a NIC may take for anything a test waits for.
inline constexpr uint64_t kAnswerNs = 2 * kSecond;
inline constexpr uint8_t kNoAnswer = 255;

// A frame of the link that the NIC sent.
struct Heard {
  Packet packet;
  uint64_t sequence = 0;  // 64 bits
  bool repeat = false;    // its number came before
  uint64_t at_ns = 0;
};

// One end of a link, by script. Left alone it is a small and well-behaved NIC:
// it numbers its frames, acknowledges, holds what comes early. Everything it
// does by default a test can do otherwise. Whatever the NIC under test sends to
// it is checked against the rules of the wire (peer_checks.cc); breaches go to
// Segment::Complain.
class Peer {
 public:
  explicit Peer(Segment& segment);
  ~Peer();  // resets the link, if it may still be up
  Peer(const Peer&) = delete;

  uint32_t link() const { return link_; }  // our name of the link
  uint32_t epoch() const { return epoch_; }
  uint32_t nic_link() const { return nic_link_; }
  uint32_t nic_epoch() const { return nic_epoch_; }
  uint32_t nic_features() const { return nic_features_; }
  bool checksum() const { return checksum_; }
  uint32_t max_frame_bytes() const { return max_frame_bytes_; }
  bool is_open() const { return open_; }
  void Forget() { open_ = false; }  // do not reset it at the end

  // --- Connecting
  // ------------------------------------------------------------- What a
  // connect says, unless the test changes it first.
  uint32_t offer_frame_bytes = 0;  // 0: what the port carries, at most 1514
  bool offer_checksum = true;
  uint32_t offer_features = 7;
  Bytes ConnectBody(std::string_view service, std::string_view data = "") const;
  void SendConnect(std::string_view service, std::string_view data = "") {
    segment_.SendControl(type::kConnect, ConnectBody(service, data));
  }
  // The accept or reject for this attempt.
  std::optional<Packet> AwaitAnswer(uint64_t within_ns = kAnswerNs);
  // Opens the link as the accept says; false if it makes no sense.
  bool TakeAccept(const Packet& accept);
  // Opens it as the responder: `connect` came from the NIC.
  bool TakeConnect(const Packet& connect);
  Bytes AcceptBody() const;

  // --- Sending
  // ----------------------------------------------------------------
  bool auto_acknowledge = true;  // each sequenced frame, at once
  uint16_t credit = kWindow;
  std::optional<uint64_t> acknowledge;  // instead of what was received
  std::optional<MacAddress> source;
  // Reads may be refused although they were acknowledged, and for each frame of
  // their answer: their aperture goes away meanwhile.
  bool reads_fail_late = false;
  uint64_t next() const { return next_; }  // our next number
  void set_next(uint64_t next) { next_ = next; }
  uint64_t expected() const { return expected_; }  // the NIC's next
  // A frame with the defaults filled in, and the next number, not used up.
  Packet Make(uint8_t type, Bytes payload, uint16_t flags = flag::kLast) const;
  void Send(const Packet& packet);  // just as it is
  // The next frame in sequence (if its type has a place there); its number.
  uint64_t Say(uint8_t type, Bytes payload, uint16_t flags = flag::kLast);
  // The same under another number: early, late or again.
  void SayAt(uint64_t sequence, uint8_t type, Bytes payload,
             uint16_t flags = flag::kLast);
  void SayAck(uint16_t flags = 0);
  // One message, in as many frames as it takes.
  void SayMessage(std::span<const uint8_t> message);
  // One write, likewise; the number of its first frame.
  uint64_t SayWrite(const Name& to, uint64_t offset,
                    std::span<const uint8_t> data, uint16_t extra_flags = 0);
  void Reset();
  size_t Room(uint8_t type) const;  // data bytes of a frame

  // --- Asking
  // -----------------------------------------------------------------
  bool Until(const std::function<bool()>& done,
             uint64_t within_ns = kAnswerNs) {
    return segment_.Until(done, within_ns);
  }
  // A flush: everything said before is then placed, and refused if it was.
  bool Flush(uint64_t within_ns = kAnswerNs);
  // Says it, and a flush; what the NIC made of it: status::kOk, the status of
  // its refusal, or kNoAnswer.
  uint8_t Try(uint8_t type, Bytes payload, uint16_t flags = flag::kLast);
  uint8_t Write(const Name& to, uint64_t offset, std::span<const uint8_t> data);
  // Reads and waits for the data, or the refusal.
  uint8_t Read(const Name& from, uint64_t offset, uint64_t length, Bytes* data);
  uint8_t Atomic(const Name& on, uint64_t offset, uint8_t operation,
                 uint64_t operand, uint64_t expected, uint64_t* before);

  // --- What was heard
  // --------------------------------------------------------- A frame for which
  // this is true is as if lost on the way.
  std::function<bool(const Packet&, uint64_t sequence)> lose;
  const std::vector<Heard>& heard() const { return heard_; }
  size_t mark() const { return heard_.size(); }
  // The first frame from `mark` on that matches, waiting for it.
  const Heard* Await(size_t mark,
                     const std::function<bool(const Heard&)>& matches,
                     uint64_t within_ns = kAnswerNs);
  const Heard* Await(size_t mark, uint8_t type, uint64_t within_ns = kAnswerNs);
  // How many frames from `mark` on match.
  size_t Count(size_t mark,
               const std::function<bool(const Heard&)>& matches) const;
  bool FlushDone(uint64_t operation) const {
    return flushes_.contains(operation);
  }
  uint8_t StatusOf(uint64_t operation) const {  // kOk unless it was refused
    const auto it = errors_.find(static_cast<uint32_t>(operation));
    return it == errors_.end() ? status::kOk : it->second;
  }
  bool ReadDone(uint64_t operation) const;
  const Bytes& ReadData(uint64_t operation);
  std::vector<Bytes>& messages() { return messages_; }
  bool closed_by_nic() const { return closed_; }
  // The highest number the NIC has acknowledged, and what it has ever reported
  // as received beyond.
  uint64_t nic_acknowledged() const { return nic_acknowledged_; }
  const std::set<uint64_t>& reported() const { return reported_; }
  uint64_t highest() const { return highest_; }  // past the NIC's newest frame

  // For the segment.
  void OnPacket(const Packet& packet, const Bytes& bytes);

 private:
  struct ReadState {
    Bytes data;
    bool done = false;
  };
  void Deliver(const Packet& packet, uint64_t sequence);
  void DeliverReadResponse(const Packet& packet);
  void DeliverError(const Packet& packet);
  void DeliverMessage(const Packet& packet);
  void NoteSent(uint64_t sequence, uint8_t type);
  void Register(const Packet& answer);
  // peer_checks.cc
  void CheckHeader(const Packet& packet, const Bytes& bytes);
  void CheckSequenced(const Packet& packet, uint64_t sequence);
  void CheckAck(const Packet& packet);
  void CheckAcknowledged(const Packet& packet);
  void Complain(std::string statement, std::string text) {
    segment_.Complain(std::move(statement), std::move(text));
  }

  Segment& segment_;
  const uint32_t link_, epoch_;
  uint32_t nic_link_ = 0, nic_epoch_ = 0, nic_features_ = 0;
  bool checksum_ = true, open_ = false;
  uint32_t max_frame_bytes_ = 1514;

  // Sending.
  uint64_t next_;
  std::set<uint64_t> sent_beyond_;  // sent, after a gap
  uint64_t sent_end_;               // all before it were sent
  // What our acknowledgements ever allowed: operations, and anything at all.
  uint64_t limit_operations_, limit_errors_;

  // Receiving.
  uint64_t expected_;
  uint64_t highest_;
  std::map<uint64_t, Packet> first_sent_;  // by the NIC, by number
  std::map<uint64_t, Packet> early_;
  std::vector<Heard> heard_;
  uint64_t nic_acknowledged_;
  std::set<uint64_t> reported_;
  std::map<uint32_t, uint8_t> errors_;
  std::set<uint64_t> flushes_;
  std::map<uint32_t, ReadState> reads_;
  std::map<uint32_t, uint64_t> atomics_;
  std::map<uint32_t, bool> asked_flush_, asked_atomic_;
  Bytes message_;
  std::vector<Bytes> messages_;
  bool closed_ = false;
};

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_PEER_H_

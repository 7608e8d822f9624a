// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONTROL_CONNECTIONS_H_
#define TRIPWIRE_NIC_CONTROL_CONNECTIONS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "nic/control/discovery.h"
#include "nic/datapath/engine.h"

namespace tripwire {

// Link set-up. The initiator finds the node by name, then repeats CONNECT until
// it is answered or its deadline passes; the responder answers repetitions of
// one attempt with the same ACCEPT. Its repetitions make the initiator the only
// side with a timer. A node that stays silent may have got another NIC since it
// was found: then it is asked for again, besides.
//
// Invariants:
//  1. One attempt, named by (initiator's MAC, link, epoch), makes at most one
//     link here.
//  2. Once an attempt has chosen a node, it is that node or none.
class Connections {
 public:
  Connections(Engine& engine, Discovery& discovery)
      : engine_(engine), discovery_(discovery) {}

  // LinkId{} when the context has as many links as it may.
  LinkId Start(uint32_t context, const std::string& node,
               const std::string& service,
               std::span<const uint8_t> private_data, uint64_t deadline_ns);
  // False when `link` is not waiting for an answer (any more).
  bool Accept(LinkId link, std::span<const uint8_t> private_data);
  void Reject(LinkId link);

  void OnAnnouncement(const Announcement& heard);
  bool OnConnect(size_t port, PathId path, const wire::FrameView& view);
  bool OnAccept(size_t port, PathId path, const wire::FrameView& view);
  bool OnReject(const wire::FrameView& view);
  void OnLinkEnded(Link& link);
  uint64_t OnTime(uint64_t now_ns);

 private:
  struct Attempt {
    std::string node;  // as asked for, or of the one chosen
    uint32_t token = 0;
    bool node_heard = false;  // the node answered, without the service
    uint64_t node_heard_ns = 0;
    std::vector<Announcement> candidates;
    uint64_t choose_at = kNever;
    bool chosen = false;
    std::string connect;      // the serialised CONNECT
    int unanswered = 0;       // of those sent since the address was last heard
    uint64_t interval_ns = 0;
    uint64_t next_ns = 0;
    uint64_t deadline_ns = 0;
  };
  struct Answer {  // to an attempt of a peer's
    LinkId link;
    std::string accept;  // serialised, once accepted
  };
  using AttemptName = std::tuple<MacAddress, uint32_t, uint32_t>;

  // Runs one attempt's timers; false when the attempt ended.
  bool Step(LinkId id, Attempt& attempt, uint64_t now_ns);
  void Choose(Link& link, Attempt& attempt);
  // The chosen node answered a question again, from wherever it is now.
  void HearAgain(Link& link, Attempt& attempt, const Announcement& heard,
                 uint64_t now_ns);
  static void AddCandidate(Attempt& attempt, const Announcement& heard);
  bool WantsChecksum(const PortInfo& port) const;

  Engine& engine_;
  Discovery& discovery_;
  std::map<LinkId, Attempt> attempts_;
  std::map<AttemptName, Answer> answers_;
  size_t requests_waiting_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_CONTROL_CONNECTIONS_H_

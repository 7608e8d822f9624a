// SPDX-License-Identifier: BSD-3-Clause
#include "nic/control/connections.h"

#include <algorithm>

#include "nic/control/body.h"
#include "nic/control/control.pb.h"

namespace tripwire {
namespace {

constexpr uint64_t kFirstRepeatNs = 20 * kMillisecond;
constexpr uint64_t kLongestRepeatNs = 500 * kMillisecond;
// Without a node name: how long others may answer before the first is taken;
// and the chosen address, before another of the node's takes its place.
constexpr uint64_t kChooseAfterNs = 20 * kMillisecond;
// So many CONNECTs without an answer, and the address is in doubt. Three are
// rarely lost in a row (at 5 % loss one time in a thousand, either way); an
// application that takes its time to accept costs a question besides each of
// the next, and nothing else.
constexpr int kDoubtAfter = 3;
// A node that answered without the service may have another NIC that offers it.
constexpr uint64_t kNoServiceAfterNs = 500 * kMillisecond;
constexpr size_t kMaxRequestsWaiting = 4096;
constexpr size_t kMaxCandidates = 64;
constexpr uint32_t kMinFrameBytes = 512;

template <typename Message>
bool ParseBody(const wire::FrameView& view, Message* message) {
  return message->ParseFromArray(view.payload.data(),
                                 static_cast<int>(view.payload.size()));
}

}  // namespace

LinkId Connections::Start(uint32_t context, const std::string& node,
                          const std::string& service,
                          std::span<const uint8_t> private_data,
                          uint64_t deadline_ns) {
  if (!engine_.MayAddLink(context)) return LinkId{};
  Link& link = engine_.NewLink(context);
  link.state = LinkState::kConnecting;
  link.service = service;
  link.private_data.assign(private_data.begin(), private_data.end());
  Attempt& attempt = attempts_[link.id];
  attempt.node = node;
  attempt.token = engine_.random().Next32();
  attempt.interval_ns = kFirstRepeatNs;
  attempt.deadline_ns = deadline_ns;
  engine_.WakeControl();
  return link.id;
}

void Connections::AddCandidate(Attempt& attempt, const Announcement& heard) {
  const bool known =
      std::any_of(attempt.candidates.begin(), attempt.candidates.end(),
                  [&](const Announcement& a) { return a.mac == heard.mac; });
  if (!known && attempt.candidates.size() < kMaxCandidates) {
    attempt.candidates.push_back(heard);
  }
}

void Connections::OnAnnouncement(const Announcement& heard) {
  for (auto& [id, attempt] : attempts_) {
    if (attempt.token != heard.token) continue;
    if (!attempt.node.empty() && attempt.node != heard.node) continue;
    Link* link = engine_.FindLink(id);
    const uint64_t now_ns = engine_.clock().NowNs();
    if (std::find(heard.services.begin(), heard.services.end(),
                  link->service) == heard.services.end()) {
      if (!attempt.node_heard) attempt.node_heard_ns = now_ns;
      attempt.node_heard = true;
      continue;
    }
    if (attempt.chosen) {
      HearAgain(*link, attempt, heard, now_ns);
      continue;
    }
    AddCandidate(attempt, heard);
    if (!attempt.node.empty()) {
      attempt.choose_at = 0;
    } else if (attempt.choose_at == kNever) {
      attempt.choose_at = now_ns + kChooseAfterNs;
    }
    engine_.WakeControl();
  }
}

void Connections::HearAgain(Link& link, Attempt& attempt,
                            const Announcement& heard, uint64_t now_ns) {
  if (attempt.unanswered < kDoubtAfter) return;
  if (heard.mac == link.remote_mac) {
    // It is there: the application takes its time.
    attempt.unanswered = 0;
    attempt.candidates.clear();
    attempt.choose_at = kNever;
    link.port = heard.port;
    link.path = heard.path;
    return;
  }
  AddCandidate(attempt, heard);
  if (attempt.choose_at == kNever) attempt.choose_at = now_ns + kChooseAfterNs;
  engine_.WakeControl();
}

bool Connections::WantsChecksum(const PortInfo& port) const {
  return engine_.options().checksum && !port.is_reliable;
}

void Connections::Choose(Link& link, Attempt& attempt) {
  const Announcement chosen = attempt.candidates.front();
  attempt.candidates.clear();
  const PortInfo& port = engine_.ports()[chosen.port]->info();
  link.node = chosen.node;
  link.port = chosen.port;
  link.path = chosen.path;
  link.remote_mac = chosen.mac;
  control::Connect connect;
  connect.set_link(link.id.value);
  connect.set_epoch(link.epoch);
  connect.set_service(link.service);
  connect.set_node(discovery_.node());
  connect.set_private_data(link.private_data.data(), link.private_data.size());
  connect.set_max_frame_bytes(port.max_frame_bytes);
  connect.set_checksum(WantsChecksum(port));
  connect.set_features(engine_.options().features);
  attempt.connect = connect.SerializeAsString();
  attempt.node = chosen.node;
  attempt.chosen = true;
  attempt.unanswered = 0;
  attempt.choose_at = kNever;
  attempt.interval_ns = kFirstRepeatNs;
  attempt.next_ns = 0;
}

bool Connections::Step(LinkId id, Attempt& attempt, uint64_t now_ns) {
  Link* link = engine_.FindLink(id);
  if (link == nullptr) return false;
  const auto end = [&](LinkEnd why) {
    engine_.EndLink(*link, why);
    return false;
  };
  if (now_ns >= attempt.choose_at) {
    const bool ambiguous =
        attempt.node.empty() &&
        std::any_of(attempt.candidates.begin(), attempt.candidates.end(),
                    [&](const Announcement& a) {
                      return a.node != attempt.candidates.front().node;
                    });
    if (ambiguous) return end(LinkEnd::kAmbiguous);
    Choose(*link, attempt);
  }
  if (!attempt.chosen && attempt.candidates.empty() && attempt.node_heard &&
      now_ns >= attempt.node_heard_ns + kNoServiceAfterNs) {
    return end(LinkEnd::kNoSuchService);
  }
  if (now_ns >= attempt.deadline_ns) return end(LinkEnd::kTimedOut);
  if (now_ns < attempt.next_ns) return true;
  const bool in_doubt = attempt.unanswered == kDoubtAfter;
  if (attempt.chosen) {
    engine_.SendControl(link->port, link->path, link->remote_mac,
                        wire::kConnect, 0, 0, AsBytes(attempt.connect));
    if (!in_doubt) ++attempt.unanswered;
  }
  if (!attempt.chosen || in_doubt) {
    discovery_.Ask(attempt.node, link->service, attempt.token);
  }
  attempt.next_ns = now_ns + attempt.interval_ns;
  attempt.interval_ns = std::min(attempt.interval_ns * 2, kLongestRepeatNs);
  return true;
}

uint64_t Connections::OnTime(uint64_t now_ns) {
  uint64_t next_ns = kNever;
  for (auto it = attempts_.begin(); it != attempts_.end();) {
    const LinkId id = it->first;
    if (!Step(id, it->second, now_ns)) {
      // EndLink may have erased it through OnLinkEnded.
      attempts_.erase(id);
      it = attempts_.upper_bound(id);
      continue;
    }
    const Attempt& attempt = it->second;
    next_ns = std::min(
        {next_ns, attempt.next_ns, attempt.deadline_ns, attempt.choose_at});
    ++it;
  }
  return next_ns;
}

bool Connections::OnConnect(size_t port, PathId path,
                            const wire::FrameView& view) {
  control::Connect connect;
  if (!ParseBody(view, &connect) || connect.epoch() == 0 ||
      connect.private_data().size() > kMaxPrivateBytes ||
      connect.node().size() > kMaxNameBytes ||
      connect.service().size() > kMaxNameBytes ||
      connect.max_frame_bytes() < kMinFrameBytes) {
    return false;
  }
  const AttemptName name{view.source(), connect.link(), connect.epoch()};
  if (auto it = answers_.find(name); it != answers_.end()) {
    if (!it->second.accept.empty()) {
      engine_.SendControl(port, path, view.source(), wire::kAccept,
                          connect.link(), connect.epoch(),
                          AsBytes(it->second.accept));
    }
    return true;
  }
  const uint32_t context = discovery_.Offerer(connect.service());
  if (context == UINT32_MAX) {
    control::Reject reject;
    reject.set_reason(control::Reject::NO_SUCH_SERVICE);
    const std::string body = reject.SerializeAsString();
    engine_.SendControl(port, path, view.source(), wire::kReject,
                        connect.link(), connect.epoch(), AsBytes(body));
    return true;
  }
  // The initiator will ask again; by then some may have been answered.
  if (requests_waiting_ >= kMaxRequestsWaiting) return true;
  if (!engine_.MayAddLink(context)) return true;
  Link& link = engine_.NewLink(context);
  link.state = LinkState::kRequested;
  link.service = connect.service();
  link.node = connect.node();
  link.private_data.assign(connect.private_data().begin(),
                           connect.private_data().end());
  link.remote_link = connect.link();
  link.remote_epoch = connect.epoch();
  link.remote_mac = view.source();
  link.port = port;
  link.path = path;
  const PortInfo& info = engine_.ports()[port]->info();
  link.max_frame_bytes =
      std::min(connect.max_frame_bytes(), info.max_frame_bytes);
  link.checksum = connect.checksum() || WantsChecksum(info);
  link.peer_features = connect.features();
  answers_[name] = {link.id, {}};
  ++requests_waiting_;
  link.tell_request = true;
  engine_.Tell(link);
  return true;
}

bool Connections::Accept(LinkId id, std::span<const uint8_t> private_data) {
  Link* link = engine_.FindLink(id);
  if (link == nullptr || link->state != LinkState::kRequested) return false;
  control::Accept accept;
  accept.set_link(link->id.value);
  accept.set_epoch(link->epoch);
  accept.set_node(discovery_.node());
  accept.set_private_data(private_data.data(), private_data.size());
  accept.set_max_frame_bytes(link->max_frame_bytes);
  accept.set_checksum(link->checksum);
  accept.set_features(engine_.options().features);
  Answer& answer =
      answers_[{link->remote_mac, link->remote_link, link->remote_epoch}];
  answer.link = id;
  answer.accept = accept.SerializeAsString();
  --requests_waiting_;
  engine_.OpenLink(*link);
  engine_.SendControl(link->port, link->path, link->remote_mac, wire::kAccept,
                      link->remote_link, link->remote_epoch,
                      AsBytes(answer.accept));
  return true;
}

void Connections::Reject(LinkId id) {
  Link* link = engine_.FindLink(id);
  if (link == nullptr || link->state != LinkState::kRequested) return;
  control::Reject reject;
  reject.set_reason(control::Reject::REFUSED);
  const std::string body = reject.SerializeAsString();
  engine_.SendControl(link->port, link->path, link->remote_mac, wire::kReject,
                      link->remote_link, link->remote_epoch, AsBytes(body));
  engine_.EndLink(*link, LinkEnd::kClosedHere, /*tell=*/false);
  engine_.FreeLink(*link);
}

bool Connections::OnAccept(size_t port, PathId path,
                           const wire::FrameView& view) {
  control::Accept accept;
  if (!ParseBody(view, &accept) || accept.epoch() == 0 ||
      accept.private_data().size() > kMaxPrivateBytes ||
      accept.max_frame_bytes() < kMinFrameBytes) {
    return false;
  }
  Link* link = engine_.FindLink(LinkId{view.header->link.get()});
  if (link == nullptr || link->epoch != view.header->epoch.get() ||
      link->remote_mac != view.source()) {
    // An attempt given up, here or at that address: the responder should not
    // keep its half.
    engine_.SendReset(port, path, view.source(), 0, 0,
                      view.header->link.get(), view.header->epoch.get());
    return true;
  }
  const PortInfo& info = engine_.ports()[port]->info();
  // Only both sides together may do without checksums.
  if (WantsChecksum(info) && !accept.checksum()) return false;
  if (link->state == LinkState::kConnecting) {
    attempts_.erase(link->id);
    link->remote_link = accept.link();
    link->remote_epoch = accept.epoch();
    if (!accept.node().empty()) link->node = accept.node();
    link->private_data.assign(accept.private_data().begin(),
                              accept.private_data().end());
    link->port = port;
    link->path = path;
    link->max_frame_bytes =
        std::min(accept.max_frame_bytes(), info.max_frame_bytes);
    link->checksum = accept.checksum();
    link->peer_features = accept.features();
    engine_.OpenLink(*link);
    link->tell_up = true;
    engine_.Tell(*link);
  }
  return true;
}

bool Connections::OnReject(const wire::FrameView& view) {
  control::Reject reject;
  if (!ParseBody(view, &reject)) return false;
  Link* link = engine_.FindLink(LinkId{view.header->link.get()});
  if (link == nullptr || link->epoch != view.header->epoch.get() ||
      link->state != LinkState::kConnecting ||
      link->remote_mac != view.source()) {
    return true;
  }
  engine_.EndLink(*link, reject.reason() == control::Reject::NO_SUCH_SERVICE
                             ? LinkEnd::kNoSuchService
                             : LinkEnd::kRefused);
  return true;
}

void Connections::OnLinkEnded(Link& link) {
  attempts_.erase(link.id);
  const auto it = answers_.find(
      {link.remote_mac, link.remote_link, link.remote_epoch});
  if (it == answers_.end() || it->second.link != link.id) return;
  if (it->second.accept.empty()) --requests_waiting_;
  answers_.erase(it);
}

}  // namespace tripwire

// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/context.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nic/api/await.h"
#include "nic/api/nic_impl.h"
#include "nic/base/wire_int.h"
#include "nic/control/body.h"

namespace tripwire {
namespace {

// How long a closing context waits for its peers to have everything.
constexpr uint64_t kLingerNs = 250 * kMillisecond;

// Whether a CONNECT or ACCEPT with so many bytes of names and data, and at most
// 31 of protobuf around them, is one frame of the port.
bool Fits(const Port& port, size_t bytes) {
  constexpr size_t kAround = wire::kHeaderBytes + 31 + wire::kChecksumBytes;
  return bytes + kAround <= port.info().max_frame_bytes;
}

absl::Status Down() { return absl::UnavailableError("the link is down"); }

absl::Status ConnectError(LinkEnd end, const std::string& node,
                          const std::string& service) {
  const std::string who = node.empty() ? std::string("any node")
                                       : absl::StrCat("node \"", node, "\"");
  switch (end) {
    case LinkEnd::kRefused:
      return absl::PermissionDeniedError(
          absl::StrCat(who, " refused the link"));
    case LinkEnd::kNoSuchService:
      return absl::NotFoundError(
          node.empty()
              ? absl::StrCat("nobody on this segment offers service \"",
                             service, "\"")
              : absl::StrCat("node \"", node,
                             "\" is there but does not offer service \"",
                             service, "\""));
    case LinkEnd::kAmbiguous:
      return absl::FailedPreconditionError(
          absl::StrCat("several nodes offer service \"", service,
                       "\"; name one (NODE:...)"));
    case LinkEnd::kTimedOut:
      return node.empty()
                 ? absl::NotFoundError(
                       absl::StrCat("nobody on this segment offers service \"",
                                    service, "\""))
                 : absl::NotFoundError(absl::StrCat(
                       "no node named \"", node, "\" answers on this segment"));
    default:
      return absl::UnavailableError(
          absl::StrCat("no link to ", who, ": ", ToString(end)));
  }
}

bool InRange(uint64_t size, uint64_t offset, uint64_t length) {
  size = std::min(size, Le48::kMax);  // what a frame can name
  return offset <= size && length <= size - offset;
}

}  // namespace

Context::Context(Nic& nic, uint32_t id)
    : nic_(nic),
      impl_(nic.impl()),
      id_(id),
      awaiters_(std::make_unique<Awaiters>()) {}

Context::~Context() {
  Engine& engine = impl_.engine();
  {
    auto lock = impl_.Lock();
    impl_.control().discovery().WithdrawAll(id_);
    engine.ForEachLink([&](Link& link) {
      if (link.context == id_) engine.CloseGracefully(link);
    });
  }
  const auto all_closed = [&] {
    bool closed = true;
    engine.ForEachLink([&](Link& link) {
      if (link.context == id_ && link.carries_data()) closed = false;
    });
    return closed;
  };
  nic_.WaitUntil(all_closed, nic_.clock().NowNs() + kLingerNs);
  auto lock = impl_.Lock();
  awaiters_.reset();
  engine.DestroyContext(id_);
}

Aperture Context::Export(std::span<uint8_t> memory, Access rights,
                         std::optional<LinkId> only) {
  auto aperture = TryExport(memory, rights, only);
  return aperture.ok() ? *std::move(aperture) : Aperture();
}

absl::StatusOr<Aperture> Context::TryExport(std::span<uint8_t> memory,
                                            Access rights,
                                            std::optional<LinkId> only) {
  Aperture aperture;
  auto lock = impl_.Lock();
  if (!impl_.engine().MayExport(id_)) {
    return absl::ResourceExhaustedError(
        "the context has as many apertures as it may");
  }
  aperture.name_ = impl_.engine().Export(id_, memory, rights, only);
  aperture.memory_ = memory;
  aperture.context_ = this;
  return aperture;
}

absl::Status Context::Listen(std::string_view service) {
  if (service.empty() || service.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a service name has 1 to ", kMaxNameBytes, " bytes"));
  }
  auto lock = impl_.Lock();
  if (!impl_.control().discovery().Offer(std::string(service), id_)) {
    return absl::AlreadyExistsError(absl::StrCat(
        "service \"", std::string(service), "\" is already offered here"));
  }
  return absl::OkStatus();
}

void Context::StopListening(std::string_view service) {
  auto lock = impl_.Lock();
  impl_.control().discovery().Withdraw(std::string(service), id_);
}

absl::StatusOr<LinkId> Context::AskForLink(
    std::string_view node, std::string_view service,
    std::span<const uint8_t> private_data, uint64_t deadline_ns) {
  if (private_data.size() > kMaxPrivateBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "connection data has at most ", kMaxPrivateBytes, " bytes"));
  }
  if (node.size() > kMaxNameBytes || service.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "names of nodes and services have at most ", kMaxNameBytes, " bytes"));
  }
  const size_t asked_bytes = impl_.control().discovery().node().size() +
                             service.size() + private_data.size();
  if (std::none_of(
          impl_.engine().ports().begin(), impl_.engine().ports().end(),
          [&](const auto& port) { return Fits(*port, asked_bytes); })) {
    return absl::InvalidArgumentError(
        absl::StrCat("two names and connection data of ", asked_bytes,
                     " bytes in all do not fit a frame of this NIC's ports"));
  }
  const LinkId id = impl_.control().connections().Start(
      id_, std::string(node), std::string(service), private_data, deadline_ns);
  if (id == LinkId{}) {
    return absl::ResourceExhaustedError(
        "the context has as many links as it may");
  }
  return id;
}

absl::StatusOr<LinkId> Context::StartConnect(
    std::string_view node, std::string_view service,
    std::span<const uint8_t> private_data) {
  auto lock = impl_.Lock();
  const auto link = AskForLink(node, service, private_data, kNever);
  if (!link.ok()) return link;
  impl_.engine().Poll(impl_.clock().NowNs());
  impl_.driver().NoteWork();
  return link;
}

absl::StatusOr<LinkId> Context::Connect(std::string_view node,
                                        std::string_view service,
                                        std::span<const uint8_t> private_data,
                                        uint64_t timeout_ns) {
  const uint64_t now_ns = nic_.clock().NowNs();
  const uint64_t deadline_ns =
      timeout_ns >= kNever - now_ns ? kNever : now_ns + timeout_ns;
  Engine& engine = impl_.engine();
  LinkId id;
  {
    auto lock = impl_.Lock();
    const auto asked = AskForLink(node, service, private_data, deadline_ns);
    if (!asked.ok()) return asked;
    id = *asked;
    // Its outcome is this call's to report, not an event's.
    engine.FindLink(id)->quiet = true;
  }
  LinkEnd end = LinkEnd::kNone;
  bool up = false;
  const auto settled = [&] {
    Link* link = engine.FindLink(id);
    if (link == nullptr) {
      end = LinkEnd::kTimedOut;
      return true;
    }
    up = link->carries_data();
    end = link->end;
    return link->state != LinkState::kConnecting;
  };
  nic_.WaitUntil(settled, kNever);
  auto lock = impl_.Lock();
  Link* link = engine.FindLink(id);
  if (up && link != nullptr) {
    // The call's return is the news of the link; what else came meanwhile was
    // held back and is told now.
    link->quiet = false;
    link->tell_up = false;
    if (link->tell_message || link->failed_ops > 0 || link->tell_down) {
      engine.Tell(*link);
    }
    return id;
  }
  if (link != nullptr) {
    engine.EndLink(*link, LinkEnd::kClosedHere, /*tell=*/false);
    engine.FreeLink(*link);
  }
  return ConnectError(end, std::string(node), std::string(service));
}

absl::Status Context::Accept(LinkId link,
                             std::span<const uint8_t> private_data) {
  if (private_data.size() > kMaxPrivateBytes) {
    return absl::InvalidArgumentError("too much connection data");
  }
  auto lock = impl_.Lock();
  if (!Owns(link)) return Down();
  const Engine& engine = impl_.engine();
  const size_t told_bytes =
      impl_.control().discovery().node().size() + private_data.size();
  if (!Fits(*engine.ports()[impl_.engine().FindLink(link)->port], told_bytes)) {
    return absl::InvalidArgumentError(
        "the connection data does not fit a frame of the link's port");
  }
  if (!impl_.control().connections().Accept(link, private_data)) return Down();
  impl_.driver().NoteWork();
  return absl::OkStatus();
}

void Context::Reject(LinkId link) {
  auto lock = impl_.Lock();
  if (Owns(link)) impl_.control().connections().Reject(link);
}

void Context::Close(LinkId id) {
  auto lock = impl_.Lock();
  Engine& engine = impl_.engine();
  Link* link = engine.FindLink(id);
  if (link == nullptr || link->context != id_) return;
  switch (link->state) {
    case LinkState::kOpen: engine.CloseGracefully(*link); break;
    case LinkState::kConnecting:
      engine.EndLink(*link, LinkEnd::kClosedHere, /*tell=*/false);
      engine.FreeLink(*link);
      break;
    case LinkState::kRequested: impl_.control().connections().Reject(id); break;
    case LinkState::kDown: engine.FreeLink(*link); break;
    default: break;
  }
  impl_.driver().NoteWork();
}

absl::StatusOr<LinkInfo> Context::Describe(LinkId id) {
  auto lock = impl_.Lock();
  Link* link = impl_.engine().FindLink(id);
  if (link == nullptr || link->context != id_) return Down();
  LinkInfo info;
  info.node = link->node;
  info.service = link->service;
  info.private_data = link->private_data;
  info.up = link->state == LinkState::kOpen;
  info.shares_memory =
      impl_.engine().ports()[link->port]->info().is_reliable;
  info.round_trip_ns = link->smoothed_rtt;
  info.send_window_frames = std::min<uint32_t>(
      static_cast<uint32_t>(link->congestion_window), link->peer_credit);
  info.retransmitted_frames = link->retransmitted_frames;
  return info;
}

std::span<uint8_t> Context::ShownMemory(LinkId id) {
  auto lock = impl_.Lock();
  Link* link = impl_.engine().FindLink(id);
  if (link == nullptr || link->context != id_) return {};
  return impl_.engine().ports()[link->port]->ShownMemory();
}

PeerMemory Context::MemoryShownBy(LinkId id) {
  auto lock = impl_.Lock();
  Link* link = impl_.engine().FindLink(id);
  if (link == nullptr || link->context != id_) return {};
  return impl_.engine().ports()[link->port]->ShownBy(link->path);
}

bool Context::Owns(LinkId id) const {
  const Link* link = impl_.engine().FindLink(id);
  return link != nullptr && link->context == id_;
}

bool Context::IsUp(LinkId id) {
  auto lock = impl_.Lock();
  Link* link = impl_.engine().FindLink(id);
  return link != nullptr && link->context == id_ &&
         link->state == LinkState::kOpen;
}

std::optional<std::vector<uint8_t>> Context::TakeMessage(LinkId link) {
  auto lock = impl_.Lock();
  if (!Owns(link)) return std::nullopt;
  auto message = impl_.engine().TakeMessage(link);
  impl_.driver().NoteWork();  // frames may have waited for the room
  return message;
}

bool Context::WaitWord(const Aperture& aperture, uint64_t offset,
                       uint64_t expected, uint64_t deadline_ns,
                       std::optional<LinkId> peer) {
  if (!InRange(aperture.memory().size(), offset, 8)) return false;
  const auto* word =
      reinterpret_cast<const uint64_t*>(aperture.memory().data() + offset);
  if (reinterpret_cast<uintptr_t>(word) % 8 != 0) return false;
  bool changed = false;
  nic_.WaitUntil(
      [&] {
        changed = __atomic_load_n(word, __ATOMIC_ACQUIRE) != expected;
        if (changed || !peer.has_value()) return changed;
        const Link* link = impl_.engine().FindLink(*peer);
        return link == nullptr || !link->carries_data();
      },
      deadline_ns);
  return changed;
}

size_t Context::TakeEvents(std::span<Event> events) {
  auto lock = impl_.Lock();
  return TakeEventsLocked(events);
}

size_t Context::TakeEventsLocked(std::span<Event> events) {
  Engine& engine = impl_.engine();
  const size_t taken = engine.TakeEvents(id_, events);
  if (event_fd_ && !engine.HasEvents(id_)) {
    uint64_t count;
    [[maybe_unused]] ssize_t n = read(event_fd_.get(), &count, sizeof count);
  }
  return taken;
}

size_t Context::Poll(std::span<Event> events) {
  ResumeCoroutines();
  const size_t taken = TakeEvents(events);
  if (taken > 0) return taken;
  nic_.Poll();
  ResumeCoroutines();
  return TakeEvents(events);
}

size_t Context::Wait(std::span<Event> events, uint64_t deadline_ns,
                     PortWatch watch) {
  for (;;) {
    const bool some = nic_.WaitUntil(
        [&] {
          // Pairs with the release in Interrupt.
          return impl_.engine().HasEvents(id_) ||
                 awaiters_->AnyReady(impl_.engine()) ||
                 interrupted_.load(std::memory_order_acquire);
        },
        deadline_ns, watch);
    ResumeCoroutines();
    const size_t taken = TakeEvents(events);
    const bool interrupted =
        interrupted_.load(std::memory_order_relaxed) &&
        interrupted_.exchange(false, std::memory_order_acquire);
    // A source may turn out to have nothing to tell: its tripwire was removed.
    if (taken > 0 || !some || interrupted) return taken;
  }
}

void Context::Interrupt() {
  interrupted_.store(true, std::memory_order_release);  // pairs with Wait
  nic_.Notify();
}

absl::StatusOr<int> Context::EventFd() {
  if (!impl_.driver().has_service()) {
    return absl::FailedPreconditionError(
        "an event fd needs the NIC's service thread");
  }
  auto lock = impl_.Lock();
  if (!event_fd_) {
    event_fd_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event_fd_) return absl::ErrnoToStatus(errno, "eventfd");
    const auto signal = [](void* argument) {
      const uint64_t one = 1;
      [[maybe_unused]] ssize_t n = write(
          static_cast<Context*>(argument)->event_fd_.get(), &one, sizeof one);
    };
    impl_.engine().set_event_signal(id_, signal, this);
    if (impl_.engine().HasEvents(id_)) signal(this);
  }
  return event_fd_.get();
}

}  // namespace tripwire

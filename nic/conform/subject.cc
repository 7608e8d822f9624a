// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/subject.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace tripwire::conform {
namespace {

Out& Put(Out& out, const Name& name) {
  return out.U32(name.handle)
      .U32(name.generation)
      .U64(name.length)
      .U8(name.rights)
      .Add(Bytes(7));
}

Out& PutText(Out& out, std::string_view text) {
  return out.U8(static_cast<uint8_t>(text.size())).Text(text);
}

Out& Put(Out& out, const WatchOptions& options) {
  return out.U8(options.access)
      .U8(options.mode)
      .U8(options.events ? 1 : 0)
      .U8(options.predicate)
      .U64(options.operand)
      .U64(options.mask)
      .U64(options.every);
}

}  // namespace

absl::Status Subject::Find(const std::string& node) {
  constexpr uint32_t kToken = 0x636f6e66;
  const auto ours = [&](const Packet& p) {
    Body body;
    if (p.type != type::kAnnounce || !ParseBody(p.payload, &body)) return false;
    const auto& services = body.strings[field::kAnnounceServices];
    return body.Number(field::kAnnounceToken) == kToken &&
           std::find(services.begin(), services.end(), kControlService) !=
               services.end() &&
           (node.empty() || body.String(field::kAnnounceNode) == node);
  };
  uint64_t wait_ns = 20 * kMillisecond;
  for (int attempt = 0; attempt < 10; ++attempt) {
    segment_.SendControl(
        type::kDiscover,
        BodyWriter()
            .String(field::kDiscoverNode, node)
            .String(field::kDiscoverService, std::string_view(kControlService))
            .Fixed32(field::kDiscoverToken, kToken),
        0, 0, /*broadcast=*/true);
    if (const auto answer = segment_.TakeControl(ours, wait_ns)) {
      Body body;
      ParseBody(answer->payload, &body);
      node_ = body.String(field::kAnnounceNode);
      segment_.set_nic_mac(answer->source);
      return absl::OkStatus();
    }
    wait_ns = std::min(2 * wait_ns, 500 * kMillisecond);
  }
  return absl::NotFoundError(
      node.empty() ? "nobody on this segment offers service \"conform\" "
                     "(tw-conform --respond, or the other NIC's own responder)"
                   : absl::StrCat("no node \"", node,
                                  "\" answers with service \"conform\""));
}

absl::Status Subject::Connect(const std::string& node) {
  if (const absl::Status found = Find(node); !found.ok()) return found;
  control_ = std::make_unique<Peer>(segment_);
  uint64_t wait_ns = 20 * kMillisecond;
  std::optional<Packet> answer;
  for (int attempt = 0; attempt < 8 && !answer; ++attempt) {
    control_->SendConnect(kControlService);
    answer = control_->AwaitAnswer(wait_ns);
    wait_ns *= 2;
  }
  if (!answer || !control_->TakeAccept(*answer)) {
    return absl::UnavailableError(absl::StrCat(
        "node \"", node_, "\" did not accept a link to \"conform\""));
  }
  try {
    const Bytes reply = Ask(Command::kHello, {});
    In in(reply);
    const uint8_t version = in.U8();
    abilities_ = in.U32();
    const auto text = in.Rest();
    description_.assign(text.begin(), text.end());
    if (version != kProtocolVersion) {
      return absl::FailedPreconditionError(
          absl::StrFormat("the responder speaks version %u of its protocol, "
                          "this suite %u",
                          version, kProtocolVersion));
    }
  } catch (const TestFailure& failure) {
    return absl::UnavailableError(failure.text);
  } catch (const TestSkipped& skipped) {
    return absl::UnavailableError("the responder does not know \"hello\"");
  }
  return absl::OkStatus();
}

bool Subject::Alive() {
  try {
    Ask(Command::kHello, {});
    return true;
  } catch (const TestFailure&) {
    return false;
  }
}

Bytes Subject::Ask(Command command, const Bytes& arguments) {
  const uint32_t token = ++tokens_;
  control_->messages().clear();
  control_->SayMessage(Out()
                           .U32(token)
                           .U8(static_cast<uint8_t>(command))
                           .Add(arguments)
                           .bytes());
  Bytes reply;
  const bool answered = control_->Until(
      [&] {
        for (Bytes& message : control_->messages()) {
          if (In(message).U32() != token) continue;
          reply = std::move(message);
          return true;
        }
        return false;
      },
      kAnswerNs);
  if (!answered) {
    throw TestFailure{"",
                      absl::StrFormat("the responder did not answer command "
                                      "%u",
                                      static_cast<int>(command))};
  }
  In in(reply);
  in.U32();
  const auto result = static_cast<Result>(in.U8());
  if (result == Result::kNotSupported) {
    throw TestSkipped{absl::StrFormat(
        "the NIC's responder does not support command %u, or not like this",
        static_cast<int>(command))};
  }
  const auto values = in.Rest();
  if (result != Result::kDone) {
    throw TestFailure{
        "", absl::StrFormat("the responder refused command %u: %s",
                            static_cast<int>(command),
                            std::string(values.begin(), values.end()))};
  }
  return Bytes(values.begin(), values.end());
}

uint32_t Subject::NewContext(std::string_view service) {
  return In(Ask(Command::kContextNew, Out().Text(service))).U32();
}

uint32_t Subject::NewLimitedContext(std::string_view service,
                                    uint64_t apertures, uint64_t tripwires) {
  return In(Ask(Command::kLimitedContext,
                Out().U64(apertures).U64(tripwires).Text(service)))
      .U32();
}

void Subject::EndContext(uint32_t context) {
  Ask(Command::kContextEnd, Out().U32(context));
}

Exported Subject::Export(uint32_t context, uint64_t length, uint8_t rights,
                         uint32_t only_link, uint8_t misalign) {
  const Bytes reply = Ask(
      Command::kExport,
      Out().U32(context).U64(length).U8(rights).U8(misalign).U32(only_link));
  In in(reply);
  Exported exported;
  exported.id = in.U32();
  exported.name.handle = in.U32();
  exported.name.generation = in.U32();
  exported.name.length = in.U64();
  exported.name.rights = in.U8();
  return exported;
}

void Subject::Revoke(const Exported& aperture) {
  Ask(Command::kRevoke, Out().U32(aperture.id));
}

Bytes Subject::Peek(const Exported& aperture, uint64_t offset,
                    uint32_t length) {
  return Ask(Command::kPeek, Out().U32(aperture.id).U64(offset).U32(length));
}

uint64_t Subject::PeekWord(const Exported& aperture, uint64_t offset) {
  return In(Peek(aperture, offset, 8)).U64();
}

void Subject::Poke(const Exported& aperture, uint64_t offset,
                   const Bytes& data) {
  Ask(Command::kPoke, Out().U32(aperture.id).U64(offset).Add(data));
}

uint32_t Subject::Watch(uint32_t context, const Exported& aperture,
                        uint64_t offset, uint64_t length,
                        const WatchOptions& options) {
  Out out;
  out.U32(context).U32(aperture.id).U64(offset).U64(length);
  return In(Ask(Command::kWatch, Put(out, options))).U32();
}

uint32_t Subject::WatchRemote(uint32_t context, uint32_t link, const Name& name,
                              uint64_t offset, uint64_t length,
                              const WatchOptions& options) {
  Out out;
  out.U32(context).U32(link);
  Put(out, name).U64(offset).U64(length);
  return In(Ask(Command::kWatchRemote, Put(out, options))).U32();
}

void Subject::Unwatch(uint32_t tripwire) {
  Ask(Command::kUnwatch, Out().U32(tripwire));
}
void Subject::Arm(uint32_t tripwire) {
  Ask(Command::kArm, Out().U32(tripwire));
}
bool Subject::ArmExpected(uint32_t tripwire, uint64_t expected) {
  return In(Ask(Command::kArmExpected, Out().U32(tripwire).U64(expected)))
             .U8() != 0;
}
bool Subject::Disarm(uint32_t tripwire) {
  return In(Ask(Command::kDisarm, Out().U32(tripwire))).U8() != 0;
}
uint64_t Subject::Count(uint32_t tripwire) {
  return In(Ask(Command::kCount, Out().U32(tripwire))).U64();
}

std::vector<ToldOf> Subject::Events(uint32_t context, uint16_t at_most) {
  const Bytes reply = Ask(Command::kEvents, Out().U32(context).U16(at_most));
  In in(reply);
  std::vector<ToldOf> events(in.U16());
  for (ToldOf& event : events) {
    event.kind = in.U8();
    event.status = in.U8();
    event.end = in.U8();
    event.link = in.U32();
    event.cookie = in.U64();
    event.count = in.U64();
    const auto data = in.Take(in.U16());
    event.data.assign(data.begin(), data.end());
  }
  return events;
}

void Subject::Accept(uint32_t context, uint32_t link, std::string_view data) {
  Ask(Command::kAccept, Out().U32(context).U32(link).Text(data));
}
void Subject::Reject(uint32_t context, uint32_t link) {
  Ask(Command::kReject, Out().U32(context).U32(link));
}

uint32_t Subject::StartConnect(uint32_t context, std::string_view node,
                               std::string_view service) {
  Out out;
  out.U32(context);
  PutText(out, node);
  return In(Ask(Command::kConnect, PutText(out, service))).U32();
}

void Subject::Close(uint32_t context, uint32_t link) {
  Ask(Command::kClose, Out().U32(context).U32(link));
}
bool Subject::IsUp(uint32_t context, uint32_t link) {
  return In(Ask(Command::kLinkState, Out().U32(context).U32(link))).U8() != 0;
}

uint32_t Subject::Write(uint32_t context, uint32_t link, const Name& to,
                        uint64_t offset, const Bytes& data, uint8_t flags) {
  Out out;
  out.U32(context).U32(link);
  return In(Ask(Command::kWrite, Put(out, to).U64(offset).U8(flags).Add(data)))
      .U32();
}

uint32_t Subject::Read(uint32_t context, uint32_t link, const Name& from,
                       uint64_t offset, uint32_t length, uint8_t flags) {
  Out out;
  out.U32(context).U32(link);
  return In(Ask(Command::kRead,
                Put(out, from).U64(offset).U32(length).U8(flags)))
      .U32();
}

void Subject::Fence(uint32_t context, uint32_t link) {
  Ask(Command::kFence, Out().U32(context).U32(link));
}

uint32_t Subject::Chain(uint32_t context, const Exported& aperture,
                        uint64_t offset, uint64_t length, uint8_t access,
                        uint64_t counter_at, const ChainTo* chain) {
  Out out;
  out.U32(context)
      .U32(aperture.id)
      .U64(offset)
      .U64(length)
      .U8(access)
      .U64(counter_at)
      .U8(chain != nullptr ? 1 : 0);
  if (chain != nullptr) {
    out.U32(chain->link);
    Put(out, chain->name)
        .U64(chain->offset)
        .U8(chain->sends_word ? 1 : 0)
        .Add(chain->data);
  }
  return In(Ask(Command::kChain, out)).U32();
}

uint8_t Subject::WaitAny(const std::vector<uint32_t>& tripwires,
                         const std::vector<uint64_t>& seen) {
  Out out;
  out.U8(static_cast<uint8_t>(tripwires.size()));
  for (size_t i = 0; i < tripwires.size(); ++i) {
    out.U32(tripwires[i]).U64(seen[i]);
  }
  return In(Ask(Command::kWaitAny, out)).U8();
}

uint32_t Subject::Flush(uint32_t context, uint32_t link) {
  return In(Ask(Command::kFlush, Out().U32(context).U32(link))).U32();
}

uint32_t Subject::Atomic(uint32_t context, uint32_t link, const Name& on,
                         uint64_t offset, uint8_t kind, uint64_t operand,
                         uint64_t expected) {
  Out out;
  out.U32(context).U32(link);
  return In(Ask(Command::kAtomic,
                Put(out, on).U64(offset).U8(kind).U64(operand).U64(expected)))
      .U32();
}

void Subject::Message(uint32_t context, uint32_t link, const Bytes& message) {
  Ask(Command::kMessage, Out().U32(context).U32(link).Add(message));
}

std::optional<Bytes> Subject::TakeMessage(uint32_t context, uint32_t link) {
  const Bytes reply = Ask(Command::kTakeMessage, Out().U32(context).U32(link));
  In in(reply);
  if (in.U8() == 0) return std::nullopt;
  const uint32_t length = in.U32();
  const auto shown = in.Rest();
  Bytes message(shown.begin(), shown.end());
  message.resize(std::min(length, 1u << 20));  // zeros for what is not shown
  return message;
}

OperationState Subject::Operation(uint32_t operation) {
  const Bytes reply = Ask(Command::kOperation, Out().U32(operation));
  In in(reply);
  OperationState state;
  state.status = in.U8();
  state.result = in.U64();
  const auto data = in.Rest();
  state.data.assign(data.begin(), data.end());
  return state;
}

OperationState Subject::Await(uint32_t operation, uint64_t within_ns) {
  const uint64_t end_ns = segment_.NowNs() + within_ns;
  for (;;) {
    OperationState state = Operation(operation);
    if (state.status != status::kPending || segment_.NowNs() >= end_ns) {
      return state;
    }
    segment_.Run(200 * kMicrosecond);
  }
}

uint32_t Subject::Observe(const Exported& aperture, uint8_t kind,
                          uint64_t first, uint64_t second) {
  return In(Ask(Command::kObserve,
                Out().U32(aperture.id).U8(kind).U64(first).U64(second)))
      .U32();
}

Observed Subject::EndObserve(uint32_t observer, bool go_on) {
  const Bytes reply =
      Ask(Command::kObserveEnd, Out().U32(observer).U8(go_on ? 1 : 0));
  In in(reply);
  Observed observed;
  observed.looks = in.U64();
  observed.changes = in.U64();
  observed.violations = in.U64();
  return observed;
}

uint64_t Subject::CounterValue(uint8_t counter) {
  const Bytes reply = Ask(Command::kCounters, {});
  In in(reply);
  for (uint16_t n = in.U16(); n > 0; --n) {
    const uint8_t which = in.U8();
    const uint64_t value = in.U64();
    if (which == counter) return value;
  }
  throw TestSkipped{
      absl::StrFormat("the NIC's responder has no counter %u", counter)};
}

}  // namespace tripwire::conform

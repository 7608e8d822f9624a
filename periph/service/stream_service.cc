// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/stream_service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/service/sink_stream.h"
#include "periph/service/subscriber.h"

namespace tripwire::periph {
namespace {

constexpr uint64_t kOpenTimeoutNs = 10 * kSecond;
constexpr uint64_t kTickNs = 100 * kMillisecond;
constexpr uint32_t kMaxLinks = 4096;
constexpr uint32_t kMaxQueueFrames = 4096;
// Each has memory of ours that its user fills.
constexpr size_t kMaxSinks = 64;
constexpr size_t kMaxNameBytes = 256;

absl::Status CheckOpen(const proto::Open& open) {
  if (open.version() != kProtocolVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("the server speaks version ", kProtocolVersion,
                     " of the protocol, the user version ", open.version()));
  }
  if (open.policy() > static_cast<uint32_t>(Policy::kLatest)) {
    return absl::InvalidArgumentError(absl::StrCat("there is no policy ", open.policy()));
  }
  if (open.queue_frames() > kMaxQueueFrames) {
    return absl::InvalidArgumentError(
        absl::StrCat("a queue has at most ", kMaxQueueFrames, " frames"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StreamService>> StreamService::Start(Nic& nic, Registry& registry) {
  std::unique_ptr<StreamService> service(new StreamService(nic, registry));
  if (auto status = service->context_->Listen(kStreamService); !status.ok()) return status;
  service->thread_ = std::thread([raw = service.get()] { raw->Run(); });
  return service;
}

StreamService::StreamService(Nic& nic, Registry& registry)
    : nic_(nic), registry_(registry), context_(nic.CreateContext({.links = kMaxLinks})) {}

StreamService::~StreamService() {
  context_->StopListening(kStreamService);
  stopping_.store(true, std::memory_order_release);  // pairs with Run
  context_->Interrupt();
  if (thread_.joinable()) thread_.join();
  leaving_.clear();  // their threads may still post
}

// ------------------------------------------------------------------- the event loop

void StreamService::Run() {
  std::array<Event, 64> events;
  while (!stopping_.load(std::memory_order_acquire)) {
    // Without streams frames are of calls, whose threads are not to be woken by us.
    const PortWatch watch = streams_.empty() ? PortWatch::kLeave : PortWatch::kTake;
    const size_t n = context_->Wait(events, NextTick(), watch);
    for (size_t i = 0; i < n; ++i) Handle(events[i]);
    DropPosted();
    Tick();
  }
  while (!streams_.empty()) End(streams_.begin()->second.link);
}

void StreamService::Handle(const Event& event) {
  switch (event.kind) {
    case EventKind::kConnectRequest:
      OnConnectRequest(event.link);
      break;
    case EventKind::kMessage:
      OnMessages(event.link);
      break;
    case EventKind::kLinkDown:
      End(event.link);
      break;
    case EventKind::kTripwire:
      if (auto it = streams_.find(event.cookie); it != streams_.end()) {
        it->second.stream->OnTripwire();
      }
      break;
    case EventKind::kOpFailed:  // late credit to a ring or feeder that is gone
    case EventKind::kLinkUp:
      break;
  }
}

void StreamService::OnConnectRequest(LinkId link) {
  if (!context_->Accept(link, {}).ok()) return;
  silent_.push_back({link, nic_.clock().NowNs() + kOpenTimeoutNs});
}

// What was said before its link's end, and comes to light after it, is heard no more:
// a stream would be opened that nobody ends.
void StreamService::OnMessages(LinkId link) {
  while (auto message = context_->TakeMessage(link)) {
    if (IsServed(link)) OnMessage(link, *message);
  }
}

void StreamService::OnMessage(LinkId link, std::span<const uint8_t> bytes) {
  const uint64_t came_ns = nic_.clock().NowNs();
  const auto message = ParseStreamMessage(bytes);
  if (!message.has_value()) return Malformed(link, "it is no message");
  if (message->has_ping()) return Pong(link, message->ping(), came_ns);
  const std::shared_ptr<Stream> stream = Find(link);
  if (message->has_open()) {
    if (stream != nullptr) return Malformed(link, "the stream is open already");
    return Open(link, message->open());
  }
  if (stream == nullptr) return Malformed(link, "there is no stream yet");
  if (!stream->OnMessage(*message)) Malformed(link, "it makes no sense now");
}

void StreamService::Pong(LinkId link, const proto::ClockPing& ping, uint64_t came_ns) {
  proto::StreamMessage message;
  message.mutable_pong()->set_sent_ns(ping.sent_ns());
  message.mutable_pong()->set_there_ns(came_ns);
  message.mutable_pong()->set_answered_ns(nic_.clock().NowNs());
  (void)Send(*context_, link, message);  // if it is down, we shall hear of it
}

void StreamService::Open(LinkId link, const proto::Open& open) {
  std::erase_if(silent_, [link](const Silent& each) { return each.link == link; });
  auto stream = MakeStream(link, open);
  if (stream.ok()) return;
  {
    std::lock_guard lock(mutex_);
    ++counters_.refused;
  }
  proto::StreamMessage message;
  message.mutable_refused()->set_code(static_cast<int>(stream.status().code()));
  message.mutable_refused()->set_error(Printable(std::string(stream.status().message())));
  (void)Send(*context_, link, message);
  context_->Close(link);  // after it was delivered
}

absl::StatusOr<std::shared_ptr<Stream>> StreamService::MakeStream(LinkId link,
                                                                  const proto::Open& open) {
  if (auto status = CheckOpen(open); !status.ok()) return status;
  const auto info = context_->Describe(link);
  if (!info.ok()) return info.status();
  const Asker asker{Printable(info->node, kMaxNameBytes), Printable(open.program(), kMaxNameBytes),
                    open.user()};
  auto device = registry_.Find(open.device(), asker);
  if (!device.ok()) return device.status();
  const bool blocks = !open.sink() && static_cast<Policy>(open.policy()) == Policy::kBlock;
  const bool exclusive = open.exclusive() || (*device)->access().exclusive;
  if (blocks && !exclusive) {
    return absl::InvalidArgumentError(
        "the policy block would hold up others: the device must be opened exclusively");
  }
  if (open.sink() && Sinks() >= kMaxSinks) {
    return absl::ResourceExhaustedError(absl::StrCat("there are ", kMaxSinks, " sinks open"));
  }
  auto opening = (*device)->Open(
      asker, {open.sink() ? UseKind::kSink : UseKind::kSource, exclusive, open.sink()});
  if (!opening.ok()) return opening.status();
  StreamPlace place{context_.get(), link, next_cookie_++, [this](uint64_t cookie) {
                      {
                        std::lock_guard lock(mutex_);
                        to_drop_.push_back(cookie);
                      }
                      context_->Interrupt();
                    }};
  std::shared_ptr<Stream> stream;
  std::shared_ptr<Subscriber> subscriber;
  if (open.sink()) {
    stream = std::make_shared<SinkStream>(place, **device, *std::move(opening), open, asker);
  } else {
    stream = subscriber =
        std::make_shared<Subscriber>(hubs_, place, **device, *std::move(opening), open, asker);
  }
  {
    std::lock_guard lock(mutex_);
    streams_[place.cookie] = {link, stream};
    cookie_of_[link] = place.cookie;
    ++counters_.opened;
  }
  spdlog::debug("{} opens {} of {} ({})", asker.node, open.sink() ? "a sink" : "a source",
                open.device(), asker.program);
  if (subscriber != nullptr) hubs_.Join(**device, subscriber);
  return stream;
}

// Those at their end count too: they have their memory still.
size_t StreamService::Sinks() const {
  const auto is_sink = [](const std::shared_ptr<Stream>& stream) { return stream->is_sink(); };
  return static_cast<size_t>(std::count_if(leaving_.begin(), leaving_.end(), is_sink) +
                             std::count_if(streams_.begin(), streams_.end(), [&](const auto& open) {
                               return is_sink(open.second.stream);
                             }));
}

bool StreamService::IsServed(LinkId link) const {
  return cookie_of_.contains(link) ||
         std::any_of(silent_.begin(), silent_.end(),
                     [link](const Silent& each) { return each.link == link; });
}

std::shared_ptr<Stream> StreamService::Find(LinkId link) {
  const auto it = cookie_of_.find(link);
  return it == cookie_of_.end() ? nullptr : streams_.at(it->second).stream;
}

void StreamService::Malformed(LinkId link, const char* what) {
  const auto info = context_->Describe(link);
  spdlog::warn("{} sent what it must not ({}): its stream is closed",
               info.ok() ? Printable(info->node, kMaxNameBytes) : "somebody", what);
  {
    std::lock_guard lock(mutex_);
    ++counters_.malformed;
  }
  End(link);
}

void StreamService::End(LinkId link) {
  std::erase_if(silent_, [link](const Silent& each) { return each.link == link; });
  if (const std::shared_ptr<Stream> stream = Find(link)) {
    {
      std::lock_guard lock(mutex_);
      streams_.erase(cookie_of_.at(link));
      cookie_of_.erase(link);
    }
    stream->Close();
    leaving_.push_back(stream);
  }
  context_->Close(link);
}

void StreamService::DropPosted() {
  std::vector<uint64_t> cookies;
  {
    std::lock_guard lock(mutex_);
    cookies.swap(to_drop_);
  }
  for (const uint64_t cookie : cookies) {
    if (auto it = streams_.find(cookie); it != streams_.end()) End(it->second.link);
  }
}

// What nobody calls for: memory that may be let go of, threads that have ended, peers
// that never said what they want.
void StreamService::Tick() {
  const uint64_t now_ns = nic_.clock().NowNs();
  if (now_ns < next_tick_ns_) return;
  next_tick_ns_ = now_ns + kTickNs;
  for (auto& [cookie, open] : streams_) open.stream->OnTick();
  leaving_.remove_if([](const auto& stream) { return stream->at_rest(); });
  hubs_.Sweep();
  while (!silent_.empty() && silent_.front().until_ns <= now_ns) {
    End(LinkId(silent_.front().link));
  }
}

uint64_t StreamService::NextTick() {
  if (streams_.empty() && leaving_.empty() && silent_.empty() && hubs_.empty()) return kNever;
  return std::max(next_tick_ns_, nic_.clock().NowNs());
}

// ----------------------------------------------------------------------- for people

std::vector<proto::StreamStat> StreamService::Stat(const std::string& device, const Asker& asker) {
  std::vector<std::shared_ptr<Stream>> streams;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [cookie, open] : streams_) streams.push_back(open.stream);
  }
  std::vector<proto::StreamStat> stats;
  for (const auto& stream : streams) {
    if (!device.empty() && stream->device().name() != device) continue;
    if (!stream->device().MaySee(asker).ok()) continue;
    stats.push_back(stream->Stat());
    // Whoever knows another's number could pass for him.
    if (stream->asker().user != asker.user) stats.back().mutable_user()->clear_user();
  }
  return stats;
}

StreamCounters StreamService::counters() {
  std::lock_guard lock(mutex_);
  StreamCounters counters = counters_;
  counters.open = streams_.size();
  return counters;
}

}  // namespace tripwire::periph

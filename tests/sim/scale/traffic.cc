// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/scale/traffic.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

namespace tripwire {
namespace {

// An aperture: a word that is written with 1, 2, 3, ...; a word that is added
// to; and the rest for everything else.
constexpr uint32_t kAdded = 8, kBulk = 64;
constexpr size_t kPoolBytes = 1 << 17;
constexpr uint32_t kWatchesPerFlow = 16;  // in cookies
constexpr size_t kConnectingAtOnce = 64;

}  // namespace

struct Traffic::Operation : Completion {
  enum class Kind : uint8_t { kWrite, kRead, kAdd };
  Traffic* traffic = nullptr;
  Flow* flow = nullptr;
  Kind kind = Kind::kWrite;
  uint32_t bytes = 0;
  uint64_t offset = 0;
  uint64_t word = 0;  // what is written, or was answered
  bool is_busy = false;
};

struct Traffic::Watched {
  uint32_t offset = 0, length = 0;
  Access access = Access::kNone;
  bool outbound = false;
  Tripwire tripwire;
  uint64_t expected = 0, told = 0;
};

struct Traffic::Flow {
  uint32_t index = 0;
  size_t from = 0, to = 0;
  LinkId near, far;
  Aperture aperture;
  RemoteAperture remote;
  std::vector<uint64_t> memory, model;  // words: aligned for atomics
  std::vector<uint8_t> answer;
  std::vector<Watched> watches;
  std::vector<std::unique_ptr<Operation>> operations;
  uint32_t issued = 0, busy = 0;
  uint64_t words_written = 0, added = 0;
  uint64_t bytes_done = 0, finished_ns = 0;
  bool is_up = false, is_queued = false, is_finished = false;
  // A read's or an addition's answer is exact only when nothing else is under
  // way.
  bool must_drain = false;

  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(memory.data()); }
  uint8_t* model_bytes() { return reinterpret_cast<uint8_t*>(model.data()); }
};

Traffic::Traffic(ScaleNetwork& network, TrafficOptions options)
    : network_(network),
      options_(options),
      pool_(kPoolBytes),
      flow_of_link_(network.size()),
      runnable_(network.size()) {
  for (uint8_t& byte : pool_) {
    byte = static_cast<uint8_t>(network_.random().Next());
  }
  for (size_t i = 0; i < network_.size(); ++i) {
    if (!network_.context(i).Listen("sim").ok()) std::abort();
  }
}

Traffic::~Traffic() {
  // Closes before memory and completions go.
  for (auto& flow : flows_) {
    flow->watches.clear();
    if (flow->near != LinkId{}) network_.context(flow->from).Close(flow->near);
    if (flow->far != LinkId{}) network_.context(flow->to).Close(flow->far);
  }
  network_.Run([](size_t) {}, [] { return false; }, kSecond);
}

uint64_t Traffic::bytes_done(size_t link) const {
  return flows_[link]->bytes_done;
}
uint64_t Traffic::finished_ns(size_t link) const {
  return flows_[link]->finished_ns;
}

bool Traffic::Connect(const std::vector<std::pair<size_t, size_t>>& pairs) {
  for (const auto& [from, to] : pairs) {
    auto flow = std::make_unique<Flow>();
    flow->index = static_cast<uint32_t>(flows_.size());
    flow->from = from;
    flow->to = to;
    flow->memory.resize(options_.aperture_bytes / 8);
    flow->model.resize(options_.aperture_bytes / 8);
    flows_.push_back(std::move(flow));
  }
  const auto turn = [this](size_t node) { OnTurn(node); };
  // A few at a time: each asks all nodes who it is that it looks for.
  for (size_t begin = 0; begin < flows_.size(); begin += kConnectingAtOnce) {
    const size_t end = std::min(flows_.size(), begin + kConnectingAtOnce);
    for (size_t i = begin; i < end; ++i) {
      Flow& flow = *flows_[i];
      const auto* index = reinterpret_cast<const uint8_t*>(&flow.index);
      flow.near = *network_.context(flow.from).StartConnect(
          ScaleNetwork::NameOf(flow.to), "sim", {index, sizeof flow.index});
      flow_of_link_[flow.from][flow.near.value] = flow.index;
      network_.Wake(flow.from, network_.clock().NowNs());
    }
    if (!network_.Run(
            turn, [&] { return up_ >= end; }, 60 * kSecond)) {
      return false;
    }
  }
  return true;
}

void Traffic::Start() {
  active_ = flows_.size();
  for (auto& flow : flows_) {
    SetTripwires(*flow);
    flow->is_queued = true;
    runnable_[flow->from].push_back(flow->index);
    network_.Wake(flow->from, network_.clock().NowNs());
  }
}

bool Traffic::Finish(uint64_t limit_ns) {
  for (size_t i = 0; i < network_.size(); ++i) {
    network_.Wake(i, network_.clock().NowNs());
  }
  return network_.Run([this](size_t node) { OnTurn(node); },
                      [this] { return active_ == 0; }, limit_ns);
}

void Traffic::RunFor(uint64_t ns) {
  network_.Run([this](size_t node) { OnTurn(node); }, [] { return false; }, ns);
}

void Traffic::OnTurn(size_t node) {
  std::array<Event, 32> events;
  while (const size_t count = network_.context(node).Poll(events)) {
    for (size_t i = 0; i < count; ++i) OnEvent(node, events[i]);
  }
  std::vector<uint32_t>& runnable = runnable_[node];
  for (size_t i = 0; i < runnable.size(); ++i) {  // grows meanwhile
    Flow& flow = *flows_[runnable[i]];
    flow.is_queued = false;
    Issue(flow);
  }
  runnable.clear();
}

void Traffic::OnEvent(size_t node, const Event& event) {
  switch (event.kind) {
    case EventKind::kConnectRequest:
      return Accept(node, event.link);
    case EventKind::kLinkUp:
      return LinkUp(node, event.link);
    case EventKind::kTripwire: {
      Flow& flow = *flows_[event.cookie / kWatchesPerFlow];
      Watched& watched = flow.watches[event.cookie % kWatchesPerFlow];
      watched.told += event.count;
      // The first watches the word that counts its own writes.
      if (&watched == flow.watches.data() && flow.memory[0] < watched.told) {
        ++verdict_.early_firings;
      }
      return;
    }
    case EventKind::kLinkDown:
    case EventKind::kOpFailed:
      ++verdict_.failed;
      return;
    case EventKind::kMessage:
      return;
  }
}

void Traffic::Accept(size_t node, LinkId link) {
  Context& context = network_.context(node);
  const auto info = context.Describe(link);
  uint32_t index = 0;
  if (!info.ok() || info->private_data.size() != sizeof index) std::abort();
  std::memcpy(&index, info->private_data.data(), sizeof index);
  Flow& flow = *flows_[index];
  flow.far = link;
  flow.aperture = context.Export({flow.bytes(), options_.aperture_bytes},
                                 Access::kAny, link);
  uint8_t name[ApertureName::kWireBytes];
  flow.aperture.name().Serialize(name);
  if (!context.Accept(link, name).ok()) std::abort();
}

void Traffic::LinkUp(size_t node, LinkId link) {
  Flow& flow = *flows_[flow_of_link_[node].at(link.value)];
  const auto info = network_.context(node).Describe(link);
  if (!info.ok() || info->private_data.size() != ApertureName::kWireBytes) {
    std::abort();
  }
  flow.remote = network_.context(node).Import(
      link, ApertureName::Parse(info->private_data.data()));
  flow.is_up = true;
  ++up_;
}

void Traffic::SetTripwires(Flow& flow) {
  Random& random = network_.random();
  flow.watches.reserve(kWatchesPerFlow);
  const auto watch = [&](uint32_t offset, uint32_t length, Access access,
                         bool outbound) {
    Watched watched;
    watched.offset = offset;
    watched.length = length;
    watched.access = access;
    watched.outbound = outbound;
    const uint64_t cookie =
        uint64_t{flow.index} * kWatchesPerFlow + flow.watches.size();
    watched.tripwire = outbound ? network_.context(flow.from).Watch(
                                      flow.remote, offset, length, access,
                                      TripwireMode::kPersistent, cookie)
                                : network_.context(flow.to).Watch(
                                      flow.aperture, offset, length, access,
                                      TripwireMode::kPersistent, cookie);
    watched.tripwire.Arm();
    flow.watches.push_back(std::move(watched));
  };
  const uint32_t count = std::min(options_.tripwires, kWatchesPerFlow);
  for (uint32_t i = 0; i < count; ++i) {
    if (i == 0) {
      watch(0, 8, Access::kWrite, false);
    } else if (i == 1) {
      watch(kAdded, 8, Access::kAtomic, false);
    } else {
      const uint32_t room = options_.aperture_bytes - kBulk;
      const auto length = static_cast<uint32_t>(
          1 + random.Below(random.Chance(0.7) ? 16 : room / 2));
      const auto offset =
          static_cast<uint32_t>(kBulk + random.Below(room - length + 1));
      watch(offset, length, random.Chance(0.7) ? Access::kWrite : Access::kAny,
            i % 3 == 0);
    }
  }
}

void Traffic::Issue(Flow& flow) {
  while (!flow.must_drain && flow.busy < options_.window && !is_stopped_ &&
         (options_.operations == 0 || flow.issued < options_.operations)) {
    Operation* operation = nullptr;
    for (auto& candidate : flow.operations) {
      if (!candidate->is_busy) operation = candidate.get();
    }
    if (operation == nullptr) {
      flow.operations.push_back(std::make_unique<Operation>());
      operation = flow.operations.back().get();
      operation->traffic = this;
      operation->flow = &flow;
      operation->on_done = [](Completion* done) {
        auto* ended = static_cast<Operation*>(done);
        ended->traffic->OnDone(*ended);
      };
    }
    if (options_.bulk_bytes > 0) {
      const uint64_t room =
          std::min<uint64_t>(kPoolBytes, options_.aperture_bytes) - kBulk;
      IssueWrite(flow, *operation, kBulk,
                 std::span(pool_).first(
                     std::min<uint64_t>(options_.bulk_bytes, room)));
    } else {
      IssueMixed(flow, *operation);
    }
  }
  const bool is_over = is_stopped_ || (options_.operations > 0 &&
                                       flow.issued >= options_.operations);
  if (is_over && flow.busy == 0 && !flow.is_finished) {
    flow.is_finished = true;
    flow.finished_ns = network_.clock().NowNs();
    --active_;
  }
}

void Traffic::IssueMixed(Flow& flow, Operation& operation) {
  Random& random = network_.random();
  const uint64_t kind = random.Below(20);
  const uint32_t room = options_.aperture_bytes - kBulk;
  if (kind < 8) {  // the word that counts
    operation.word = ++flow.words_written;
    return IssueWrite(
        flow, operation, 0,
        {reinterpret_cast<const uint8_t*>(&operation.word), sizeof(uint64_t)});
  }
  if (kind < 17) {
    const uint64_t length = 1 + random.Below(random.Chance(0.5) ? 64 : room);
    const uint64_t source = random.Below(kPoolBytes - length + 1);
    return IssueWrite(flow, operation, kBulk + random.Below(room - length + 1),
                      std::span(pool_).subspan(source, length));
  }
  // Its answer is checked, so everything before must be done, and nothing comes
  // before it is.
  flow.must_drain = true;
  operation.is_busy = true;
  ++flow.busy;
  ++flow.issued;
  ++verdict_.operations;
  Context& context = network_.context(flow.from);
  if (kind < 19) {
    const uint64_t length = 1 + random.Below(room);
    operation.kind = Operation::Kind::kRead;
    operation.bytes = static_cast<uint32_t>(length);
    operation.offset = kBulk + random.Below(room - length + 1);
    flow.answer.assign(length, 0);
    Touch(flow, operation.offset, length, Access::kRead);
    if (!context.Read(flow.remote, operation.offset, flow.answer, &operation)
             .ok()) {
      ++verdict_.failed;
    }
  } else {
    operation.kind = Operation::Kind::kAdd;
    operation.bytes = 8;
    operation.offset = kAdded;
    operation.word = ~uint64_t{0};
    Touch(flow, kAdded, 8, Access::kAtomic);
    if (!context.FetchAdd(flow.remote, kAdded, 1, &operation.word, &operation)
             .ok()) {
      ++verdict_.failed;
    }
    ++flow.model[kAdded / 8];
  }
}

void Traffic::IssueWrite(Flow& flow, Operation& operation, uint64_t offset,
                         std::span<const uint8_t> data) {
  operation.kind = Operation::Kind::kWrite;
  operation.bytes = static_cast<uint32_t>(data.size());
  operation.is_busy = true;
  ++flow.busy;
  ++flow.issued;
  ++verdict_.operations;
  std::memcpy(flow.model_bytes() + offset, data.data(), data.size());
  Touch(flow, offset, data.size(), Access::kWrite);
  if (!network_.context(flow.from)
           .Write(flow.remote, offset, data, &operation)
           .ok()) {
    ++verdict_.failed;
  }
}

// The reference: what an access does to each tripwire.
void Traffic::Touch(Flow& flow, uint64_t offset, uint64_t length,
                    Access access) {
  for (Watched& watched : flow.watches) {
    if (Includes(watched.access, access) &&
        offset < uint64_t{watched.offset} + watched.length &&
        watched.offset < offset + length) {
      ++watched.expected;
    }
  }
}

// With the NIC locked: only notes it.
void Traffic::OnDone(Operation& operation) {
  Flow& flow = *operation.flow;
  operation.is_busy = false;
  --flow.busy;
  if (operation.status.load() != OpStatus::kOk) ++verdict_.failed;
  if (operation.kind == Operation::Kind::kRead) {
    // Nothing was issued since, so the model is what memory was.
    if (std::memcmp(flow.answer.data(), flow.model_bytes() + operation.offset,
                    flow.answer.size()) != 0) {
      ++verdict_.wrong_answers;
    }
    flow.must_drain = false;
  } else if (operation.kind == Operation::Kind::kAdd) {
    if (operation.word != flow.added++) ++verdict_.wrong_answers;
    flow.must_drain = false;
  }
  flow.bytes_done += operation.bytes;
  bytes_done_ += operation.bytes;
  if (!flow.is_queued) {
    flow.is_queued = true;
    runnable_[flow.from].push_back(flow.index);
  }
}

Verdict Traffic::Check() {
  // Events of the last operations may still be on their way to be taken.
  for (size_t i = 0; i < network_.size(); ++i) OnTurn(i);
  Verdict verdict = verdict_;
  verdict.links = flows_.size();
  for (auto& flow : flows_) {
    if (flow->memory != flow->model) ++verdict.wrong_memory;
    for (Watched& watched : flow->watches) {
      const uint64_t count = watched.tripwire.count();
      verdict.firings += watched.expected;
      if (count < watched.expected) verdict.missed += watched.expected - count;
      if (count > watched.expected) {
        verdict.false_firings += count - watched.expected;
      }
      if (watched.told != count) ++verdict.wrong_events;
    }
  }
  return verdict;
}

double JainIndex(const std::vector<double>& shares) {
  double sum = 0, squares = 0;
  for (const double share : shares) {
    sum += share;
    squares += share * share;
  }
  return squares == 0
             ? 0
             : sum * sum / (static_cast<double>(shares.size()) * squares);
}

}  // namespace tripwire

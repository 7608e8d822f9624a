// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/nic.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "nic/api/context.h"
#include "nic/api/nic_impl.h"
#include "nic/base/process.h"
#include "nic/control/body.h"

namespace tripwire {
namespace {

EngineOptions MakeEngineOptions(const NicOptions& options) {
  EngineOptions engine;
  engine.keepalive_ns = options.keepalive_ns;
  engine.peer_timeout_ns = options.peer_timeout_ns;
  engine.go_back_n = options.go_back_n;
  engine.first_sequence = options.first_sequence;
  engine.checksum = options.checksum;
  return engine;
}

}  // namespace

Nic::Impl::Impl(NicOptions options, std::string node)
    : clock_(options.clock != nullptr ? options.clock : &system_clock_),
      random_(options.seed != 0 ? Random(options.seed) : Random::FromSystem()),
      engine_(MakeEngineOptions(options), *clock_, random_,
              std::move(options.ports)),
      control_(engine_, std::move(node)),
      driver_(engine_, *clock_, options.max_spin_ns,
              /*can_block=*/options.clock == nullptr) {
  if (options.service_thread) driver_.StartService();
}

absl::StatusOr<std::unique_ptr<Nic>> Nic::Open(NicOptions options) {
  if (options.ports.empty()) {
    return absl::InvalidArgumentError("a NIC needs at least one port");
  }
  for (const auto& port : options.ports) {
    if (port->info().max_frame_bytes < 512) {
      return absl::InvalidArgumentError(
          "port " + port->info().name +
          " carries frames of less than 512 bytes; 1514 is usual");
    }
  }
  std::string node = options.node.empty() ? HostName() : options.node;
  if (node.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("node name longer than ", kMaxNameBytes, " bytes"));
  }
  return std::unique_ptr<Nic>(new Nic(
      std::make_unique<Nic::Impl>(std::move(options), std::move(node))));
}

Nic::Nic(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Nic::~Nic() { impl_->driver().StopService(); }

std::unique_ptr<Context> Nic::CreateContext(const ContextQuotas& quotas) {
  auto lock = impl_->Lock();
  return std::unique_ptr<Context>(
      new Context(*this, impl_->engine().CreateContext(quotas)));
}

std::vector<NodeInfo> Nic::Discover(
    uint64_t wait_ns,
    absl::FunctionRef<bool(const std::vector<NodeInfo>&)> enough) {
  std::vector<NodeInfo> nodes;
  {
    auto lock = impl_->Lock();
    impl_->control().discovery().StartSurvey();
  }
  const auto collected = [&] {
    const auto& survey = impl_->control().discovery().survey();
    while (nodes.size() < survey.size()) {
      const Announcement& heard = survey[nodes.size()];
      nodes.push_back({heard.node, heard.services,
                       impl_->engine().ports()[heard.port]->info().name,
                       heard.mac});
    }
    return enough(nodes);
  };
  WaitUntil(collected, clock().NowNs() + wait_ns);
  return nodes;
}

bool Nic::Poll() { return impl_->driver().Poll(); }

uint64_t Nic::NextDeadlineNs() {
  auto lock = impl_->Lock();
  return impl_->engine().NextDeadline();
}

bool Nic::WaitUntil(absl::FunctionRef<bool()> ready, uint64_t deadline_ns,
                    PortWatch watch) {
  return impl_->driver().WaitUntil(ready, deadline_ns, watch);
}

void Nic::Notify() { impl_->driver().Notify(); }

Clock& Nic::clock() { return impl_->clock(); }

const std::string& Nic::node() const {
  return impl_->control().discovery().node();
}

NicCounters Nic::counters() {
  auto lock = impl_->Lock();
  NicCounters counters = impl_->engine().counters();
  counters.sleeps = impl_->driver().sleeps();
  counters.contended = impl_->driver().contended();
  for (const auto& port : impl_->engine().ports()) {
    const PortCounters of_port = port->counters();
    counters.doorbells_rung += of_port.doorbells_rung;
    counters.wakeups += of_port.wakeups;
  }
  return counters;
}

std::vector<PortCounters> Nic::port_counters() {
  auto lock = impl_->Lock();
  std::vector<PortCounters> all;
  for (const auto& port : impl_->engine().ports()) {
    all.push_back(port->counters());
  }
  return all;
}

}  // namespace tripwire

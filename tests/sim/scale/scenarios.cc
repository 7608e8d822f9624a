// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/scale/scenarios.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <utility>
#include <vector>

namespace tripwire {
namespace {

constexpr uint64_t kBandwidth = 10'000'000'000;
constexpr uint64_t kFrameNs = 1231;  // 1514 bytes, CRC, preamble and gap at that

ScaleOptions Usual(uint64_t seed, size_t nodes, bool go_back_n) {
  ScaleOptions options;
  options.seed = seed;
  options.nodes = nodes;
  options.go_back_n = go_back_n;
  options.fabric.bandwidth_bits_per_s = kBandwidth;
  options.fabric.propagation_ns = 5 * kMicrosecond;
  options.fabric.rx_queue_frames = 4096;
  options.turn_jitter_ns = kFrameNs;
  return options;
}

// Links that send writes of 16 KiB, sixteen at once.
TrafficOptions Bulk() {
  TrafficOptions traffic;
  traffic.aperture_bytes = 16384 + 64;
  traffic.bulk_bytes = 16384;
  traffic.operations = 0;
  traffic.window = 16;
  return traffic;
}

std::vector<std::pair<size_t, size_t>> AllToOne(size_t senders) {
  std::vector<std::pair<size_t, size_t>> pairs;
  for (size_t i = 1; i <= senders; ++i) pairs.push_back({i, 0});
  return pairs;
}

}  // namespace

WholeResult RunWhole(const WholeNetwork& run) {
  ScaleOptions options = Usual(run.seed, run.nodes, run.go_back_n);
  options.fabric.switch_queue_bytes = 1 << 20;
  options.faults.loss = run.loss;
  options.faults.duplicate = 0.01;
  options.faults.reorder = 0.02;
  options.faults.corrupt = 0.002;
  options.stall_every_ns = 50 * kMillisecond;
  ScaleNetwork network(options);
  TrafficOptions mix;
  mix.operations = run.operations;
  mix.aperture_bytes = run.aperture_bytes;
  Traffic traffic(network, mix);
  std::vector<std::pair<size_t, size_t>> pairs;
  for (size_t i = 0; i < run.links; ++i) {
    const size_t from = network.random().Below(run.nodes);
    const size_t step = 1 + network.random().Below(run.nodes - 1);
    pairs.push_back({from, (from + step) % run.nodes});
  }
  WholeResult result;
  if (!traffic.Connect(pairs)) return result;
  network.SetFaults(true);
  const uint64_t begin_ns = network.clock().NowNs();
  traffic.Start();
  result.is_finished = traffic.Finish(600 * kSecond);
  result.simulated_ns = network.clock().NowNs() - begin_ns;
  network.SetFaults(false);
  result.verdict = traffic.Check();
  result.totals = network.Totals();
  return result;
}

FairnessResult RunFairness(const FairnessRun& run) {
  ScaleOptions options = Usual(run.seed, run.senders + 1, run.go_back_n);
  options.fabric.switch_queue_bytes = run.queue_bytes;
  ScaleNetwork network(options);
  Traffic traffic(network, Bulk());
  FairnessResult result;
  if (!traffic.Connect(AllToOne(run.senders))) return result;
  traffic.Start();
  traffic.RunFor(run.warm_up_ns);
  std::vector<uint64_t> before;
  for (size_t i = 0; i < traffic.links(); ++i) {
    before.push_back(traffic.bytes_done(i));
  }
  traffic.RunFor(run.measured_ns);
  std::vector<double> shares;
  double total = 0;
  for (size_t i = 0; i < traffic.links(); ++i) {
    shares.push_back(static_cast<double>(traffic.bytes_done(i) - before[i]));
    total += shares.back();
  }
  result.jain = JainIndex(shares);
  result.utilisation = total * 8 * static_cast<double>(kSecond) /
                       static_cast<double>(run.measured_ns) /
                       static_cast<double>(kBandwidth);
  traffic.Stop();
  if (!traffic.Finish(60 * kSecond)) std::abort();
  result.dropped = network.fabric().counters().switch_full;
  result.verdict = traffic.Check();
  return result;
}

IncastResult RunIncast(const IncastRun& run) {
  ScaleOptions options = Usual(run.seed, run.senders + 1, run.go_back_n);
  options.fabric.switch_queue_bytes = run.queue_bytes;
  ScaleNetwork network(options);
  TrafficOptions bulk = Bulk();
  bulk.aperture_bytes = run.bytes + 64;
  bulk.bulk_bytes = run.bytes;
  bulk.operations = 1;
  Traffic traffic(network, bulk);
  IncastResult result;
  if (!traffic.Connect(AllToOne(run.senders))) return result;
  const uint64_t begin_ns = network.clock().NowNs();
  traffic.Start();
  result.is_finished = traffic.Finish(60 * kSecond);
  uint64_t last_ns = 0;
  for (size_t i = 0; i < traffic.links(); ++i) {
    last_ns = std::max(last_ns, traffic.finished_ns(i));
  }
  result.last_ms = static_cast<double>(last_ns - begin_ns) * 1e-6;
  const double least_ms = static_cast<double>(run.senders) *
                          static_cast<double>(run.bytes) * 8 * 1e3 /
                          static_cast<double>(kBandwidth);
  result.slowdown = result.last_ms / least_ms;
  result.dropped = network.fabric().counters().switch_full;
  result.verdict = traffic.Check();
  return result;
}

GoodputResult RunGoodput(const GoodputRun& run) {
  ScaleOptions options = Usual(run.seed, 2, run.go_back_n);
  options.faults.loss = run.loss;
  options.faults.reorder = run.reorder;
  options.faults.on_receive = true;
  options.faults.on_transmit = false;
  options.stall_every_ns = run.stall_every_ns;
  ScaleNetwork network(options);
  Traffic traffic(network, Bulk());
  GoodputResult result;
  if (!traffic.Connect({{0, 1}})) return result;
  network.SetFaults(true);
  traffic.Start();
  const NicCounters before = network.Totals();
  traffic.RunFor(run.measured_ns);
  result.gigabits_per_s = static_cast<double>(traffic.bytes_done()) * 8 /
                          static_cast<double>(run.measured_ns);
  result.totals = network.Totals();
  const double sent =
      static_cast<double>(result.totals.tx_frames - before.tx_frames);
  const double again = static_cast<double>(result.totals.retransmitted_frames);
  result.sent_to_needed = sent > again ? sent / (sent - again) : 0;
  network.SetFaults(false);
  traffic.Stop();
  if (!traffic.Finish(60 * kSecond)) std::abort();
  result.verdict = traffic.Check();
  return result;
}

Costs MeasureCosts(size_t links, size_t tripwires) {
  const auto heap = [] {
    return static_cast<double>(::mallinfo2().uordblks + ::mallinfo2().hblkhd);
  };
  // Tables of tripwires are mapped, past the heap.
  const auto resident = [] {
    double pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> pages;
    return pages * static_cast<double>(::sysconf(_SC_PAGESIZE));
  };
  Costs costs;
  ScaleNetwork network(Usual(1, 2, false));
  const auto settle = [&] {
    network.Run([](size_t) {}, [] { return false; }, 10 * kMillisecond);
  };
  Context& left = network.context(0);
  Context& right = network.context(1);
  if (!right.Listen("sim").ok()) std::abort();
  std::vector<LinkId> near(links), far;
  far.reserve(links);
  const auto accept = [&](size_t) {
    Event event;
    while (right.Poll({&event, 1}) > 0) {
      if (event.kind != EventKind::kConnectRequest) continue;
      far.push_back(event.link);
      if (!right.Accept(event.link, {}).ok()) std::abort();
    }
    while (left.Poll({&event, 1}) > 0) {
    }
  };
  double before = heap();
  for (size_t i = 0; i < links; ++i) {
    near[i] = *left.StartConnect(ScaleNetwork::NameOf(1), "sim", {});
    network.Wake(0, network.clock().NowNs());
    if (!network.Run(
            accept, [&] { return far.size() > i && left.IsUp(near[i]); },
            kSecond)) {
      std::abort();
    }
  }
  settle();
  costs.idle_link = (heap() - before) / (2 * static_cast<double>(links));
  std::vector<uint8_t> memory(tripwires * 64 + 64);
  before = heap();
  Aperture to_right = right.Export(memory, Access::kAny);
  Aperture to_left = left.Export(memory, Access::kAny);
  const std::vector<uint8_t> word(8, 1);
  for (size_t i = 0; i < links; ++i) {
    if (!left.Write(left.Import(near[i], to_right.name()), 0, word).ok() ||
        !right.Write(right.Import(far[i], to_left.name()), 0, word).ok()) {
      std::abort();
    }
    for (size_t node = 0; node < 2; ++node) {
      network.Wake(node, network.clock().NowNs());
    }
    settle();
  }
  costs.busy_link =
      costs.idle_link + (heap() - before) / (2 * static_cast<double>(links));
  std::vector<Tripwire> watches(tripwires);
  before = resident();
  for (size_t i = 0; i < tripwires; ++i) {
    watches[i] = right.Watch(to_right, i * 64, 8, Access::kWrite,
                             TripwireMode::kPersistent, i);
  }
  costs.tripwire = (resident() - before) / static_cast<double>(tripwires);
  watches.clear();
  std::vector<Aperture> apertures(tripwires);
  before = heap();
  for (size_t i = 0; i < tripwires; ++i) {
    apertures[i] =
        right.Export(std::span(memory).subspan(i * 64, 64), Access::kAny);
  }
  costs.aperture = (heap() - before) / static_cast<double>(tripwires);
  return costs;
}

}  // namespace tripwire

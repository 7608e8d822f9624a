// SPDX-License-Identifier: BSD-3-Clause
// What a wire can do at best: round trip and goodput between two processes that
// spin, through DPDK alone (the floor) and through a Port of ours.
#include <rte_bus_vdev.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nic/base/clock.h"
#include "nic/port/eal.h"
#include "nic/port/port_spec.h"

namespace tripwire {
namespace {

constexpr size_t kBurst = 32;
constexpr uint32_t kPingBytes = 64;

// One end of the wire under test.
class Wire {
 public:
  virtual ~Wire() = default;
  // Sends up to `count` frames of a size; returns how many went.
  virtual size_t Send(uint32_t frame_bytes, size_t count) = 0;
  // Takes what has arrived, a burst at most; returns how many.
  virtual size_t Receive() = 0;
  virtual void Service() {}
  virtual bool IsUp() { return true; }
};

void FillHeader(uint8_t* data) {
  std::memset(data, 0xff, 6);
  std::memset(data + 6, 0x02, 6);
  data[12] = 0x88;
  data[13] = 0xb5;
}

// DPDK as its examples use it.
class DpdkWire final : public Wire {
 public:
  DpdkWire(const std::string& device, const std::string& arguments,
           uint32_t buffer_bytes) {
    Check(Eal::Start().ok(), "start");
    Check(rte_vdev_init(device.c_str(), arguments.c_str()) == 0, "vdev");
    Check(rte_eth_dev_get_port_by_name(device.c_str(), &id_) == 0, "port");
    pool_ = rte_pktmbuf_pool_create("floor", 8191, 256, 0,
                                    static_cast<uint16_t>(buffer_bytes + 128),
                                    SOCKET_ID_ANY);
    Check(pool_ != nullptr, "pool");
    rte_eth_conf config{};
    Check(rte_eth_dev_configure(id_, 1, 1, &config) == 0, "configure");
    Check(rte_eth_rx_queue_setup(id_, 0, 1024, SOCKET_ID_ANY, nullptr, pool_) ==
              0,
          "rx");
    Check(rte_eth_tx_queue_setup(id_, 0, 1024, SOCKET_ID_ANY, nullptr) == 0,
          "tx");
    Check(rte_eth_dev_start(id_) == 0, "start device");
    rte_thread_register();  // for the pool's per-thread cache
  }
  ~DpdkWire() override { rte_eth_dev_stop(id_); }
  size_t Send(uint32_t frame_bytes, size_t count) override {
    rte_mbuf* burst[kBurst];
    if (rte_pktmbuf_alloc_bulk(pool_, burst, static_cast<unsigned>(count))) {
      return 0;
    }
    for (size_t i = 0; i < count; ++i) {
      FillHeader(rte_pktmbuf_mtod(burst[i], uint8_t*));
      burst[i]->data_len = static_cast<uint16_t>(frame_bytes);
      burst[i]->pkt_len = frame_bytes;
    }
    const uint16_t sent =
        rte_eth_tx_burst(id_, 0, burst, static_cast<uint16_t>(count));
    if (sent < count) {
      rte_pktmbuf_free_bulk(burst + sent, static_cast<unsigned>(count - sent));
    }
    return sent;
  }
  size_t Receive() override {
    rte_mbuf* burst[kBurst];
    const uint16_t count = rte_eth_rx_burst(id_, 0, burst, kBurst);
    if (count > 0) rte_pktmbuf_free_bulk(burst, count);
    return count;
  }
  bool IsUp() override {
    rte_eth_link link{};
    return rte_eth_link_get_nowait(id_, &link) == 0 && link.link_status != 0;
  }

 private:
  static void Check(bool ok, const char* what) {
    if (ok) return;
    std::fprintf(stderr, "DPDK: %s: %s\n", what, Eal::TakeComplaint().c_str());
    _exit(1);
  }
  uint16_t id_ = 0;
  rte_mempool* pool_ = nullptr;
};

class PortWire final : public Wire {
 public:
  explicit PortWire(const std::string& spec) {
    auto port = OpenPort(spec);
    if (!port.ok()) {
      std::fprintf(stderr, "%s\n", port.status().ToString().c_str());
      _exit(1);
    }
    port_ = *std::move(port);
  }
  size_t Send(uint32_t frame_bytes, size_t count) override {
    Frame frames[kBurst];
    count = port_->Allocate({frames, count});
    for (size_t i = 0; i < count; ++i) {
      FillHeader(frames[i].data);
      frames[i].length_bytes = frame_bytes;
    }
    const size_t sent = port_->Transmit(path_, {frames, count});
    port_->Release({frames + sent, count - sent});
    return sent;
  }
  size_t Receive() override {
    Frame frames[kBurst];
    const size_t count = port_->Receive(frames);
    if (count > 0) path_ = frames[0].path;
    for (size_t i = 0; i < count; ++i) {
      if (frames[i].is_borrowed) Keep(frames[i]);
    }
    port_->Release({frames, count});
    return count;
  }
  void Service() override { port_->Service(clock_.NowNs()); }

 private:
  // A frame lent in place has been looked at by nobody yet; DPDK's drivers have
  // copied theirs. So that both do the same work, it is copied as they do.
  void Keep(const Frame& frame) {
    const uint32_t longest = port_->info().max_frame_bytes;
    const size_t stride = longest + size_t{128};
    if (kept_.empty()) kept_.resize(kBurst * stride);
    next_kept_ = (next_kept_ + 1) % kBurst;
    uint8_t* to = kept_.data() + next_kept_ * stride;
    // Lines that lie alike are copied faster.
    to += (reinterpret_cast<uintptr_t>(frame.data) -
           reinterpret_cast<uintptr_t>(to)) %
          64;
    std::memcpy(to, frame.data, std::min(frame.length_bytes, longest));
  }

  SystemClock clock_;
  std::unique_ptr<Port> port_;
  PathId path_ = 0;
  std::vector<uint8_t> kept_;
  size_t next_kept_ = 0;
};

// What the two processes tell each other.
struct Shared {
  std::atomic<int> ready{0};
  std::atomic<int> phase{0};  // odd: echo; even: send frames of size
  std::atomic<uint32_t> frame_bytes{0};
  std::atomic<bool> is_over{false};
};

struct Result {
  double median_us = 0, p99_us = 0;
  std::vector<std::pair<uint32_t, double>> frames_per_s;  // by size
};

void Pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

using MakeWire = std::function<std::unique_ptr<Wire>()>;

[[noreturn]] void RunOther(const MakeWire& make, Shared& shared) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  alarm(120);
  auto wire = make();
  while (!wire->IsUp() && !shared.is_over) {
    wire->Service();
    usleep(1000);
  }
  ++shared.ready;
  while (!shared.is_over) {
    const int phase = shared.phase;
    if (phase % 2 == 1) {
      for (size_t i = wire->Receive(); i > 0; --i) {
        while (wire->Send(kPingBytes, 1) == 0 && !shared.is_over) {
        }
      }
    } else if (phase > 0) {
      wire->Send(shared.frame_bytes, kBurst);
    } else {
      wire->Receive();
      wire->Service();
      usleep(100);
    }
  }
  wire.reset();
  _exit(0);
}

void PingPong(Wire& wire, double seconds, Result& result) {
  SystemClock clock;
  std::vector<double> times_us;
  const uint64_t end_ns =
      clock.NowNs() + static_cast<uint64_t>(seconds * kSecond);
  while (clock.NowNs() < end_ns && times_us.size() < 2'000'000) {
    const uint64_t start_ns = clock.NowNs();
    wire.Send(kPingBytes, 1);
    // Frames are lost while interfaces come up.
    uint64_t now_ns = start_ns;
    while (wire.Receive() == 0 && now_ns - start_ns < kSecond) {
      now_ns = clock.NowNs();
    }
    times_us.push_back(static_cast<double>(clock.NowNs() - start_ns) / 1000);
  }
  std::sort(times_us.begin(), times_us.end());
  result.median_us = times_us[times_us.size() / 2];
  result.p99_us = times_us[times_us.size() * 99 / 100];
}

void Goodput(Wire& wire, Shared& shared, uint32_t size, double seconds,
             Result& result) {
  SystemClock clock;
  shared.frame_bytes = size;
  shared.phase = 2;
  uint64_t count = 0;
  const uint64_t warm_ns = clock.NowNs() + 50 * kMillisecond;
  while (clock.NowNs() < warm_ns) wire.Receive();
  const uint64_t start_ns = clock.NowNs();
  const uint64_t end_ns = start_ns + static_cast<uint64_t>(seconds * kSecond);
  uint64_t now_ns = start_ns;
  while ((now_ns = clock.NowNs()) < end_ns) {
    for (int i = 0; i < 16; ++i) count += wire.Receive();
  }
  shared.phase = 0;
  result.frames_per_s.emplace_back(size,
                                   static_cast<double>(count) * 1e9 /
                                       static_cast<double>(now_ns - start_ns));
  const uint64_t drained_ns = clock.NowNs() + 20 * kMillisecond;
  while (clock.NowNs() < drained_ns) wire.Receive();
}

struct Setup {
  std::string name;
  MakeWire here, there;
  std::vector<uint32_t> sizes;
};

Result Measure(const Setup& setup, double seconds, bool pin) {
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto& shared = *new (memory) Shared;
  int pipe_fds[2];
  if (pipe(pipe_fds) != 0) std::exit(1);
  // DPDK starts once in a process: each end has one of its own.
  const pid_t here = fork();
  if (here == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(120);
    if (pin) Pin(0);
    auto wire = setup.here();
    ++shared.ready;
    while (shared.ready < 2 || !wire->IsUp()) {
      wire->Receive();
      wire->Service();
      usleep(1000);
    }
    Result result;
    shared.phase = 1;
    usleep(50'000);
    PingPong(*wire, seconds, result);
    for (uint32_t size : setup.sizes) {
      Goodput(*wire, shared, size, seconds, result);
    }
    shared.is_over = true;
    FILE* out = fdopen(pipe_fds[1], "w");
    std::fprintf(out, "%f %f", result.median_us, result.p99_us);
    for (const auto& [size, rate] : result.frames_per_s) {
      std::fprintf(out, " %u %f", size, rate);
    }
    std::fclose(out);
    _exit(0);
  }
  close(pipe_fds[1]);
  const pid_t there = fork();
  if (there == 0) {
    if (pin) Pin(1);
    while (shared.ready < 1) usleep(1000);
    RunOther(setup.there, shared);
  }
  Result result;
  FILE* in = fdopen(pipe_fds[0], "r");
  if (std::fscanf(in, "%lf %lf", &result.median_us, &result.p99_us) == 2) {
    uint32_t size;
    double rate;
    while (std::fscanf(in, " %u %lf", &size, &rate) == 2) {
      result.frames_per_s.emplace_back(size, rate);
    }
  }
  std::fclose(in);
  shared.is_over = true;
  waitpid(here, nullptr, 0);
  waitpid(there, nullptr, 0);
  munmap(memory, sizeof(Shared));
  return result;
}

void Print(const std::string& name, const Result& result, const Result& floor,
           bool json) {
  if (json) {
    std::printf(
        "{\"wire\": \"%s\", \"rtt_median_us\": %.3f, "
        "\"rtt_p99_us\": %.3f, \"rtt_ratio\": %.3f, \"frames\": [",
        name.c_str(), result.median_us, result.p99_us,
        result.median_us / floor.median_us);
  } else {
    std::printf(
        "%-12s round trip: median %.2f us, 99%% %.2f us (%.2f of the "
        "floor)\n",
        name.c_str(), result.median_us, result.p99_us,
        result.median_us / floor.median_us);
  }
  for (size_t i = 0; i < result.frames_per_s.size(); ++i) {
    const auto& [size, rate] = result.frames_per_s[i];
    const bool has_floor =
        i < floor.frames_per_s.size() && floor.frames_per_s[i].first == size;
    const double ratio = has_floor ? rate / floor.frames_per_s[i].second : 0;
    if (json) {
      std::printf("%s{\"bytes\": %u, \"per_s\": %.0f, \"ratio\": %.3f}",
                  i == 0 ? "" : ", ", size, rate, ratio);
    } else {
      std::printf(
          "%-12s %6u bytes: %7.3f M frames/s %7.2f GB/s (%.2f of the "
          "floor)\n",
          name.c_str(), size, rate / 1e6, rate * size / 1e9, ratio);
    }
  }
  std::printf(json ? "]}\n" : "\n");
  std::fflush(stdout);
}

}  // namespace
}  // namespace tripwire

int main(int argc, char** argv) {
  using namespace tripwire;
  CLI::App app(
      "Measures what a wire can do, through DPDK alone and through a "
      "Tripwire port, between two processes that spin");
  app.set_version_flag("--version", TRIPWIRE_VERSION);
  std::vector<std::string> eth, xdp;
  double seconds = 1;
  bool pin = false, json = false;
  app.add_option("--eth", eth, "two joined interfaces, for AF_PACKET")
      ->expected(2);
  app.add_option("--xdp", xdp, "two joined interfaces, for AF_XDP")
      ->expected(2);
  app.add_option("--seconds", seconds, "for each number")
      ->check(CLI::Range(0.01, 60.0));
  app.add_flag("--pin", pin, "one process on processor 0, one on 1");
  app.add_flag("--json", json, "one JSON object a line");
  CLI11_PARSE(app, argc, argv);

  const std::string path = "/tmp/tw-port-floor-" + std::to_string(getpid());
  const std::vector<uint32_t> sizes = {64, 256, 1514, 4096, 9014, 16384};
  const std::string memif = "socket-abstract=no,rsize=10,socket=" + path;
  const auto dpdk_memif = [&](uint32_t bytes) {
    return Setup{
        "dpdk memif",
        [=] {
          return std::make_unique<DpdkWire>(
              "net_memif0",
              memif + ",role=server,bsize=" + std::to_string(bytes), bytes);
        },
        [=] {
          return std::make_unique<DpdkWire>(
              "net_memif1",
              memif + ",role=client,bsize=" + std::to_string(bytes), bytes);
        },
        sizes};
  };
  const auto port = [&](const std::string& name, const std::string& here,
                        const std::string& there, std::vector<uint32_t> some) {
    return Setup{name, [=] { return std::make_unique<PortWire>(here); },
                 [=] { return std::make_unique<PortWire>(there); }, some};
  };
  const Result floor = Measure(dpdk_memif(16384), seconds, pin);
  unlink(path.c_str());
  Print("dpdk memif", floor, floor, json);
  const Result ours = Measure(
      port("memif", "memif:" + path + ",listen", "memif:" + path, sizes),
      seconds, pin);
  Print("memif", ours, floor, json);

  const std::vector<uint32_t> wire_sizes = {64, 256, 1514};
  if (!eth.empty()) {
    const auto raw = [](const std::string& interface) {
      return [interface] {
        return std::make_unique<DpdkWire>(
            "net_af_packet0",
            "iface=" + interface +
                ",framesz=2048,blocksz=65536,framecnt=4096,qdisc_bypass=1",
            2048);
      };
    };
    const Result eth_floor = Measure(
        {"dpdk eth", raw(eth[0]), raw(eth[1]), wire_sizes}, seconds, pin);
    Print("dpdk eth", eth_floor, eth_floor, json);
    Print("eth",
          Measure(port("eth", "eth:" + eth[0], "eth:" + eth[1], wire_sizes),
                  seconds, pin),
          eth_floor, json);
  }
  if (!xdp.empty()) {
    const auto raw = [](const std::string& interface) {
      return [interface] {
        return std::make_unique<DpdkWire>(
            "net_af_xdp0", "iface=" + interface + ",busy_budget=0", 3584);
      };
    };
    const Result xdp_floor = Measure(
        {"dpdk xdp", raw(xdp[0]), raw(xdp[1]), wire_sizes}, seconds, pin);
    Print("dpdk xdp", xdp_floor, xdp_floor, json);
    Print("xdp",
          Measure(port("xdp", "xdp:" + xdp[0], "xdp:" + xdp[1], wire_sizes),
                  seconds, pin),
          xdp_floor, json);
  }
  return 0;
}

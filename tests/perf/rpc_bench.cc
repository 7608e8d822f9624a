// SPDX-License-Identifier: BSD-3-Clause
// tw-rpc-bench: what a remote procedure call costs above the NIC under it.
//
// Two processes over one memif: the child serves, the parent calls. First the
// floor, in the same run on the same two NICs: an 8-byte write, its tripwire and
// an 8-byte answer. Then null calls one at a time, null calls many in flight,
// and bulk data in and out. Memory allocations are counted by wrapping malloc;
// of system calls, those the waiting makes (sleeps and doorbells) are counted by
// the NIC, and all of them by `strace -c -f tw-rpc-bench ...`.
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "nic/api/context.h"
#include "nic/api/nic.h"
#include "nic/base/wire_int.h"
#include "nic/comm/rpc.h"
#include "nic/port/port_spec.h"
#include "tests/perf/allocations.h"

namespace tripwire {
namespace {

constexpr uint64_t kPatienceNs = 60 * kSecond;
constexpr size_t kBulkBytes = 1u << 20;

struct Settings {
  std::string directory;
  bool spin = false;
  int rounds = 20'000;
  int in_flight = 32;
};

std::unique_ptr<Nic> OpenNic(const Settings& settings, const char* node,
                             const std::string& spec) {
  NicOptions options;
  options.node = node;
  options.max_spin_ns = settings.spin ? 10 * kMillisecond : 0;
  auto port = OpenPort(spec);
  if (!port.ok()) {
    std::fprintf(stderr, "%s\n", port.status().ToString().c_str());
    std::exit(1);
  }
  options.ports.push_back(*std::move(port));
  auto nic = Nic::Open(std::move(options));
  if (!nic.ok()) {
    std::fprintf(stderr, "%s\n", nic.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(nic);
}

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "tw-rpc-bench: %s\n", what.c_str());
  std::exit(1);
}

uint64_t Median(std::vector<uint64_t>& times, double quantile = 0.5) {
  const auto at = times.begin() + static_cast<ptrdiff_t>(
      static_cast<double>(times.size() - 1) * quantile);
  std::nth_element(times.begin(), at, times.end());
  return *at;
}

// ------------------------------------------------------------------ the floor

struct Word {
  alignas(64) uint8_t bytes[64] = {};
  uint64_t Load() const {
    return __atomic_load_n(reinterpret_cast<const uint64_t*>(bytes),
                           __ATOMIC_ACQUIRE);
  }
};

void Write(Context& context, const RemoteAperture& to, uint64_t value) {
  uint8_t bytes[8];
  std::memcpy(bytes, &value, sizeof value);
  if (!context.Write(to, 0, bytes).ok()) Die("the link is lost");
}

// Answers each word until it is all ones.
void AnswerWords(Nic& nic) {
  auto context = nic.CreateContext();
  Word word;
  Aperture aperture = context->Export({word.bytes, 8}, Access::kWrite);
  if (!context->Listen("floor").ok()) Die("cannot listen");
  Event event;
  while (context->Wait({&event, 1}, nic.clock().NowNs() + kPatienceNs) == 1 &&
         event.kind != EventKind::kConnectRequest) {
  }
  const auto info = context->Describe(event.link);
  if (!info.ok() || info->private_data.size() < ApertureName::kWireBytes) {
    Die("nobody came");
  }
  const RemoteAperture back = context->Import(
      event.link, ApertureName::Parse(info->private_data.data()));
  uint8_t name[ApertureName::kWireBytes];
  aperture.name().Serialize(name);
  if (!context->Accept(event.link, name).ok()) Die("cannot accept");
  for (uint64_t seen = 0; seen != UINT64_MAX;) {
    if (!context->WaitWord(aperture, 0, seen,
                           nic.clock().NowNs() + kPatienceNs)) {
      Die("no word came");
    }
    seen = word.Load();
    Write(*context, back, seen);
  }
}

uint64_t WordRoundTrip(Nic& nic, int rounds) {
  auto context = nic.CreateContext();
  Word word;
  Aperture aperture = context->Export({word.bytes, 8}, Access::kWrite);
  uint8_t name[ApertureName::kWireBytes];
  aperture.name().Serialize(name);
  const auto link = context->Connect("bench", "floor", name, kPatienceNs);
  if (!link.ok()) Die(link.status().ToString());
  const auto info = context->Describe(*link);
  const RemoteAperture to = context->Import(
      *link, ApertureName::Parse(info->private_data.data()));
  std::vector<uint64_t> times;
  Clock& clock = nic.clock();
  for (int i = 1; i <= rounds; ++i) {
    const uint64_t begin = clock.NowNs();
    Write(*context, to, static_cast<uint64_t>(i));
    if (!context->WaitWord(aperture, 0, static_cast<uint64_t>(i) - 1,
                           begin + kPatienceNs)) {
      Die("no answer");
    }
    times.push_back(clock.NowNs() - begin);
  }
  Write(*context, to, UINT64_MAX);
  context->WaitWord(aperture, 0, static_cast<uint64_t>(rounds),
                    clock.NowNs() + kSecond);
  return Median(times);
}

// ------------------------------------------------------------------ the server

// What the server counted since it was asked last; the answer to a call with
// one byte.
struct ServerCounts {
  uint64_t calls, handovers, takeovers, timers, allocations, sleeps, doorbells,
      cpu_ns;
};

// Processor time this process has used.
uint64_t CpuNs() {
  timespec ts;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * kSecond +
         static_cast<uint64_t>(ts.tv_nsec);
}

[[noreturn]] void RunServer(const Settings& settings, int ready_fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto nic = OpenNic(settings, "bench",
                     "memif:" + settings.directory + "/bench.sock,listen");
  const char byte = 1;
  if (write(ready_fd, &byte, 1) != 1) Die("no parent");
  AnswerWords(*nic);
  rpc::Server* self = nullptr;
  rpc::Server::Callbacks callbacks;
  callbacks.call = [&](rpc::Call call) {
    if (call.request().size() == 1) {
      const rpc::ServerStats stats = self->stats();
      const NicCounters counters = nic->counters();
      const ServerCounts counts{stats.calls,      stats.handovers,
                                stats.takeovers,  stats.timers_set,
                                Allocations(),      counters.sleeps,
                                counters.doorbells_rung, CpuNs()};
      call.Reply({reinterpret_cast<const uint8_t*>(&counts), sizeof counts});
      return;
    }
    const size_t bulk = call.bulk_reply_capacity();
    if (bulk == 0) return call.Reply(call.request());
    call.Reply(call.request(), call.AllocateBulk(bulk), bulk, false);
  };
  rpc::ServerOptions options;
  options.bulk_bytes = kBulkBytes;
  auto server = rpc::Server::Start(*nic, options, callbacks);
  if (!server.ok()) Die(server.status().ToString());
  self = server->get();
  pause();
  _exit(0);
}

// ------------------------------------------------------------------ the client

class Bench {
 public:
  Bench(Nic& nic, rpc::Client& client, uint64_t floor_ns)
      : nic_(nic), client_(client), floor_ns_(floor_ns) {}

  void NullCalls(int rounds) {
    rpc::Request request;
    const uint8_t message[64] = {};
    request.message = message;
    rpc::Response response;
    std::vector<uint64_t> times;
    times.reserve(static_cast<size_t>(rounds));
    for (int i = 0; i < rounds / 10; ++i) Call(request, response);
    Begin();
    for (int i = 0; i < rounds; ++i) {
      const uint64_t begin = nic_.clock().NowNs();
      Call(request, response);
      times.push_back(nic_.clock().NowNs() - begin);
    }
    const double seconds = End("null call, one at a time", rounds);
    const uint64_t median = Median(times);
    std::printf("  median %.2f us, p99 %.2f us, %.0f calls/s; %.2f x the floor\n",
                Us(median), Us(Median(times, 0.99)), rounds / seconds,
                static_cast<double>(median) / static_cast<double>(floor_ns_));
  }

  void ManyInFlight(int rounds, int in_flight) {
    const uint8_t message[64] = {};
    rpc::Request request;
    request.message = message;
    InFlight(request, rounds / 10, in_flight);
    Begin();
    InFlight(request, rounds, in_flight);
    const double seconds =
        End("null calls, " + std::to_string(in_flight) + " in flight", rounds);
    std::printf("  %.0f calls/s\n", rounds / seconds);
  }

  void Bulk(bool in, size_t bytes, int rounds, int in_flight) {
    std::vector<uint8_t> data(in ? bytes : 1, 1);
    const iovec piece{data.data(), bytes};
    rpc::Request request;
    const uint8_t message[64] = {};
    request.message = message;
    if (in) {
      request.bulk = {&piece, 1};
    } else {
      request.bulk_reply_capacity = bytes;
    }
    InFlight(request, rounds / 10 + 1, in_flight);
    Begin();
    InFlight(request, rounds, in_flight);
    const double seconds =
        End("bulk " + std::string(in ? "in " : "out ") +
                std::to_string(bytes / 1024) + " KiB, " +
                std::to_string(in_flight) + " in flight",
            rounds);
    std::printf("  %.2f GB/s\n",
                static_cast<double>(bytes) * rounds / seconds / 1e9);
  }

  // What a connected pair uses when nothing goes on.
  void Idle(unsigned seconds) {
    const ServerCounts before = AskServer();
    const uint64_t cpu_ns = CpuNs();
    sleep(seconds);
    const uint64_t used_ns = CpuNs() - cpu_ns;
    const ServerCounts after = AskServer();
    const double percent = 1e-7 / seconds;
    std::printf("idle for %u s\n  client %.3f %% of a core, server %.3f %%\n",
                seconds, static_cast<double>(used_ns) * percent,
                static_cast<double>(after.cpu_ns - before.cpu_ns) * percent);
  }

 private:
  static double Us(uint64_t ns) { return static_cast<double>(ns) / 1e3; }

  void Call(const rpc::Request& request, rpc::Response& response) {
    const absl::Status status = client_.Invoke(request, &response);
    if (!status.ok()) Die(status.ToString());
  }

  // Keeps `in_flight` calls going until `rounds` are done: each answer starts
  // the next call, on the thread that brought it.
  void InFlight(const rpc::Request& request, int rounds, int in_flight) {
    struct Load {
      rpc::Client& client;
      const rpc::Request& request;
      std::atomic<int> to_start, to_end;
      void Start() {
        client.InvokeAsync(request, [this](absl::Status status, rpc::Response) {
          if (!status.ok()) Die(status.ToString());
          if (to_start.fetch_sub(1) > 0) Start();
          to_end.fetch_sub(1);
        });
      }
    } load{client_, request, rounds - std::min(rounds, in_flight), rounds};
    for (int i = 0; i < std::min(rounds, in_flight); ++i) load.Start();
    while (load.to_end > 0) usleep(1000);
  }

  ServerCounts AskServer() {
    const uint8_t one[1] = {};
    rpc::Request request;
    request.message = one;
    rpc::Response response;
    Call(request, response);
    ServerCounts counts;
    if (response.message.size() != sizeof counts) Die("odd counts");
    std::memcpy(&counts, response.message.data(), sizeof counts);
    return counts;
  }

  void Begin() {
    server_ = AskServer();
    counters_ = nic_.counters();
    allocations_ = Allocations();
    begin_ns_ = nic_.clock().NowNs();
  }

  double End(const std::string& name, int rounds) {
    const uint64_t took_ns = nic_.clock().NowNs() - begin_ns_;
    const uint64_t allocated = Allocations() - allocations_;
    const NicCounters now = nic_.counters();
    const ServerCounts server = AskServer();
    const double n = rounds;
    std::printf("%s\n", name.c_str());
    std::printf(
        "  per call: client %.4f allocations, %.4f sleeps, %.4f doorbells; "
        "server %.4f, %.4f, %.4f, %.4f timers, %.4f handovers, %.4f takeovers\n",
        static_cast<double>(allocated) / n,
        static_cast<double>(now.sleeps - counters_.sleeps) / n,
        static_cast<double>(now.doorbells_rung - counters_.doorbells_rung) / n,
        static_cast<double>(server.allocations - server_.allocations) / n,
        static_cast<double>(server.sleeps - server_.sleeps) / n,
        static_cast<double>(server.doorbells - server_.doorbells) / n,
        static_cast<double>(server.timers - server_.timers) / n,
        static_cast<double>(server.handovers - server_.handovers) / n,
        static_cast<double>(server.takeovers - server_.takeovers) / n);
    return static_cast<double>(took_ns) / 1e9;
  }

  Nic& nic_;
  rpc::Client& client_;
  const uint64_t floor_ns_;
  ServerCounts server_{};
  NicCounters counters_;
  uint64_t allocations_ = 0, begin_ns_ = 0;
};

int RunClient(const Settings& settings) {
  auto nic = OpenNic(settings, "caller",
                     "memif:" + settings.directory + "/bench.sock");
  const uint64_t floor_ns = WordRoundTrip(*nic, settings.rounds);
  std::printf("waiting: %s\n", settings.spin ? "spinning" : "blocking");
  std::printf("8-byte write, tripwire, answer (the floor)\n  median %.2f us\n",
              static_cast<double>(floor_ns) / 1e3);
  rpc::ClientOptions options;
  options.node = "bench";
  options.connect_timeout_ns = kPatienceNs;
  absl::StatusOr<std::unique_ptr<rpc::Client>> client =
      absl::UnavailableError("");
  for (int i = 0; i < 100 && !client.ok(); ++i) {
    client = rpc::Client::Connect(*nic, options);
    if (!client.ok()) usleep(20'000);  // the server comes after the floor
  }
  if (!client.ok()) Die(client.status().ToString());
  Bench bench(*nic, **client, floor_ns);
  bench.NullCalls(settings.rounds);
  bench.ManyInFlight(settings.rounds * 4, settings.in_flight);
  const int bulk_rounds = std::max(settings.rounds / 20, 100);
  for (const size_t bytes : {size_t{4096}, size_t{131072}, kBulkBytes}) {
    bench.Bulk(true, bytes, bulk_rounds, 8);
    bench.Bulk(false, bytes, bulk_rounds, 8);
  }
  bench.Idle(3);
  return 0;
}

}  // namespace
}  // namespace tripwire

int main(int argc, char** argv) {
  tripwire::Settings settings;
  CLI::App app("What remote procedure calls cost over memif");
  app.add_flag("--spin", settings.spin, "wait by spinning, not by blocking");
  app.add_option("--rounds", settings.rounds, "null calls to make")
      ->check(CLI::Range(100, 100'000'000));
  app.add_option("--in-flight", settings.in_flight, "calls at once")
      ->check(CLI::Range(1, 63));
  CLI11_PARSE(app, argc, argv);
  char directory[] = "/tmp/tw-rpc-bench-XXXXXX";
  if (mkdtemp(directory) == nullptr) tripwire::Die("no directory");
  settings.directory = directory;
  int ready[2];
  if (pipe(ready) != 0) tripwire::Die("no pipe");
  const pid_t child = fork();
  if (child == 0) tripwire::RunServer(settings, ready[1]);
  char byte;
  if (read(ready[0], &byte, 1) != 1) tripwire::Die("the server did not start");
  const int result = tripwire::RunClient(settings);
  kill(child, SIGTERM);
  waitpid(child, nullptr, 0);
  std::filesystem::remove_all(directory);
  return result;
}

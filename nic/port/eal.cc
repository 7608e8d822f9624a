// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/eal.h"

#include <dlfcn.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <string_view>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"

namespace tripwire {
namespace {

// Without hugepages DPDK's heap is one mapping of fixed size. Pages that are
// never used cost nothing, but each costs some bookkeeping at start.
constexpr int kHeapMegabytes = 512;

struct State {
  std::mutex mutex;
  bool is_started = false;
  absl::Status result;
  std::vector<std::string> pci_addresses;
  bool has_telemetry = false;
  std::vector<std::string> arguments;  // DPDK keeps pointers into them
  std::mutex log_mutex;
  std::string complaint;
};

// Never destroyed: DPDK's threads may log until the very end.
State& GetState() {
  static State* state = new State;
  return *state;
}

ssize_t WriteLog(void*, const char* data, size_t length) {
  std::string line(data, length);
  absl::StripAsciiWhitespace(&line);
  if (!line.empty()) {
    spdlog::debug("DPDK: {}", line);
    State& state = GetState();
    std::lock_guard lock(state.log_mutex);
    state.complaint = std::move(line);
  }
  return static_cast<ssize_t>(length);
}

void RedirectLog() {
  cookie_io_functions_t functions{};
  functions.write = WriteLog;
  FILE* stream = fopencookie(nullptr, "w", functions);
  if (stream == nullptr) return;
  setvbuf(stream, nullptr, _IOLBF, BUFSIZ);
  rte_openlog_stream(stream);
}

// What the AF_XDP driver's libraries have to say; their print callbacks are
// alike.
int PrintLibrary(int, const char* format, va_list arguments) {
  char line[256];
  const int length = std::vsnprintf(line, sizeof line, format, arguments);
  if (length > 0) {
    WriteLog(nullptr, line, std::min<size_t>(length, sizeof line - 1));
  }
  return length;
}

// They were loaded, if at all, together with the driver.
void RedirectLibraryLogs() {
  using Print = int (*)(int, const char*, va_list);
  using SetPrint = Print (*)(Print);
  constexpr const char* kLibraries[][2] = {{"libbpf.so.1", "libbpf_set_print"},
                                           {"libxdp.so.1", "libxdp_set_print"}};
  for (const auto& [library, function] : kLibraries) {
    void* handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == nullptr) continue;
    if (void* symbol = dlsym(handle, function)) {
      reinterpret_cast<SetPrint>(symbol)(PrintLibrary);
    }
    dlclose(handle);
  }
}

int FirstAllowedCpu() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) return cpu;
    }
  }
  return 0;
}

bool HasHugepages() {
  FILE* file = std::fopen("/proc/sys/vm/nr_hugepages", "re");
  if (file == nullptr) return false;
  long count = 0;
  const bool is_read = std::fscanf(file, "%ld", &count) == 1;
  std::fclose(file);
  return is_read && count > 0;
}

std::vector<std::string> Arguments(const State& state) {
  std::vector<std::string> arguments = {
      "tripwire", "--log-level=warning",
      absl::StrCat("--lcores=0@", FirstAllowedCpu())};
  // With telemetry, a name of ours for the directory of its socket.
  arguments.push_back(state.has_telemetry ? "--file-prefix=tripwire"
                                          : "--no-telemetry");
  const bool uses_pci = !state.pci_addresses.empty();
  if (uses_pci && HasHugepages()) {
    arguments.push_back("--in-memory");
  } else {
    arguments.push_back("--no-huge");
    arguments.push_back("--no-shconf");
    arguments.push_back(absl::StrCat("-m", kHeapMegabytes));
  }
  if (!uses_pci) {
    arguments.push_back("--no-pci");
    arguments.push_back("--iova-mode=va");
  }
  for (const std::string& address : state.pci_addresses) {
    arguments.push_back(absl::StrCat("-a", address));
  }
  return arguments;
}

// Runs in a thread of its own: rte_eal_init pins whoever calls it.
absl::Status StartInThisThread(State& state) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);  // DPDK's threads inherit it
  RedirectLog();
  state.arguments = Arguments(state);
  std::vector<char*> argv;
  for (std::string& argument : state.arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  if (rte_eal_init(static_cast<int>(argv.size()) - 1, argv.data()) < 0) {
    return absl::InternalError(
        absl::StrCat("DPDK does not start: ", rte_strerror(rte_errno), " (",
                     Eal::TakeComplaint(), ")"));
  }
  RedirectLibraryLogs();
  return absl::OkStatus();
}

}  // namespace

absl::Status Eal::Start() {
  State& state = GetState();
  std::lock_guard lock(state.mutex);
  if (!state.is_started) {
    state.is_started = true;
    std::thread([&] { state.result = StartInThisThread(state); }).join();
  }
  return state.result;
}

void Eal::AllowPciDevices(const std::vector<std::string>& addresses) {
  State& state = GetState();
  std::lock_guard lock(state.mutex);
  if (state.is_started) return;
  for (const std::string& address : addresses) {
    state.pci_addresses.push_back(address);
  }
}

bool Eal::IsPciAllowed(const std::string& address) {
  State& state = GetState();
  std::lock_guard lock(state.mutex);
  return std::find(state.pci_addresses.begin(), state.pci_addresses.end(),
                   address) != state.pci_addresses.end();
}

void Eal::WantTelemetry() {
  State& state = GetState();
  std::lock_guard lock(state.mutex);
  if (!state.is_started) state.has_telemetry = true;
}

bool Eal::HasTelemetry() {
  State& state = GetState();
  std::lock_guard lock(state.mutex);
  return state.has_telemetry;
}

std::string Eal::TakeComplaint() {
  State& state = GetState();
  std::lock_guard lock(state.log_mutex);
  return std::exchange(state.complaint, "");
}

}  // namespace tripwire

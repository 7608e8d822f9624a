// SPDX-License-Identifier: BSD-3-Clause
#include "nic/tools/bench_pair.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tripwire::tools {
namespace {

// Longer than any one measurement takes.
constexpr int kPatienceMs = 3'600'000;

[[noreturn]] void RunChild(const BenchEnds& ends, const FarEnd::Body& body,
                           int ready_fd, int report_fd) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!ends.far_netns.empty()) {
    UniqueFd netns(::open(ends.far_netns.c_str(), O_RDONLY | O_CLOEXEC));
    if (!netns || ::setns(netns.get(), CLONE_NEWNET) != 0) {
      std::fprintf(stderr, "tw: cannot enter the network namespace %s\n",
                   ends.far_netns.c_str());
      ::_exit(1);
    }
  }
  if (ends.far_cpu >= 0) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(ends.far_cpu, &cpus);
    if (::sched_setaffinity(0, sizeof cpus, &cpus) != 0) {
      std::fprintf(stderr, "tw: cannot run on processor %d\n", ends.far_cpu);
    }
  }
  const absl::Status status = body(
      [&] {
        const char byte = 1;
        (void)!::write(ready_fd, &byte, 1);
      },
      report_fd);
  if (!status.ok()) {
    std::fprintf(stderr, "tw: far end: %s\n",
                 std::string(status.message()).c_str());
  }
  // No destructors of the parent's objects in this copy of it.
  ::_exit(status.ok() ? 0 : 1);
}

}  // namespace

void PlaceApart(BenchEnds* ends) {
  cpu_set_t cpus;
  if (::sched_getaffinity(0, sizeof cpus, &cpus) != 0 || CPU_COUNT(&cpus) < 2)
    return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &cpus)) continue;
    if (ends->near_cpu < 0) ends->near_cpu = cpu;
    ends->far_cpu = cpu;
  }
}

absl::StatusOr<FarEnd> FarEnd::Start(const BenchEnds& ends, const Body& body) {
  int ready[2], report[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  UniqueFd ready_out(ready[0]), ready_in(ready[1]);
  if (::pipe2(report, O_CLOEXEC) != 0)
    return absl::ErrnoToStatus(errno, "pipe");
  UniqueFd report_out(report[0]), report_in(report[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  if (pid == 0) RunChild(ends, body, ready_in.get(), report_in.get());
  ready_in.reset();
  report_in.reset();
  FarEnd far(pid, std::move(report_out));
  pollfd wait{ready_out.get(), POLLIN, 0};
  char byte;
  if (::poll(&wait, 1, 20000) != 1 || ::read(ready_out.get(), &byte, 1) != 1) {
    return absl::UnavailableError("the far end did not start");
  }
  return far;
}

FarEnd::FarEnd(FarEnd&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), report_(std::move(other.report_)) {}

FarEnd::~FarEnd() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

absl::StatusOr<std::string> FarEnd::Finish() {
  std::string report;
  char buffer[256];
  pollfd wait{report_.get(), POLLIN, 0};
  for (;;) {
    if (::poll(&wait, 1, kPatienceMs) != 1)
      return absl::DeadlineExceededError("the far end does not finish");
    const ssize_t n = ::read(report_.get(), buffer, sizeof buffer);
    if (n <= 0) break;
    report.append(buffer, static_cast<size_t>(n));
  }
  int status = 0;
  ::waitpid(std::exchange(pid_, -1), &status, 0);
  if (status != 0) return absl::InternalError("the far end failed");
  return report;
}

absl::Status RunIsolated(const BenchEnds& ends,
                         const std::function<absl::Status(void*)>& body,
                         void* result, size_t result_bytes) {
  // The report is one byte for success and the result, or none and the error.
  BenchEnds place;
  place.far_cpu = ends.near_cpu;
  auto child = FarEnd::Start(
      place, [&](const std::function<void()>& ready, int report_fd) {
        ready();
        const absl::Status status = body(result);
        std::string report =
            status.ok() ? std::string("+") : std::string(status.message());
        if (status.ok())
          report.append(static_cast<const char*>(result), result_bytes);
        const bool written = ::write(report_fd, report.data(), report.size()) ==
                             static_cast<ssize_t>(report.size());
        return written ? absl::OkStatus()
                       : absl::InternalError("cannot report");
      });
  if (!child.ok()) return child.status();
  auto report = child->Finish();
  if (!report.ok()) return report.status();
  if (report->empty() || report->front() != '+')
    return absl::UnavailableError(*report);
  if (report->size() != 1 + result_bytes)
    return absl::InternalError("a short report");
  std::memcpy(result, report->data() + 1, result_bytes);
  return absl::OkStatus();
}

}  // namespace tripwire::tools

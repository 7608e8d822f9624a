// SPDX-License-Identifier: BSD-3-Clause
// What others take for the same: 8 bytes to another process and 8 back, through
// the kernel.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "nic/base/clock.h"
#include "nic/base/fd.h"
#include "nic/tools/bench_pair.h"

namespace tripwire::tools {
namespace {

// Longer than the measurement takes. The other end may die, and a blocking read
// from it would last for ever.
constexpr unsigned kPatienceSeconds = 300;
constexpr size_t kWordBytes = 8;

// Both ends of a way to another process: what each reads from and writes to.
struct Way {
  UniqueFd near_in, near_out, far_in, far_out;
};

absl::Status Error(const char* what) {
  return absl::ErrnoToStatus(errno, what);
}

// A socket of 127.0.0.1 and its address.
absl::StatusOr<UniqueFd> Bind(int type, sockaddr_in* address) {
  UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  if (!fd) return Error("socket");
  *address = {};
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof *address;
  auto* generic = reinterpret_cast<sockaddr*>(address);
  if (::bind(fd.get(), generic, size) != 0 ||
      ::getsockname(fd.get(), generic, &size) != 0) {
    return Error("bind to the loopback");
  }
  return fd;
}

absl::Status ConnectTo(const UniqueFd& fd, const sockaddr_in& address) {
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof address) != 0) {
    return Error("connect over the loopback");
  }
  return absl::OkStatus();
}

absl::StatusOr<Way> FromSockets(UniqueFd near, UniqueFd far) {
  Way way;
  way.near_out.reset(::dup(near.get()));
  way.far_out.reset(::dup(far.get()));
  if (!way.near_out || !way.far_out) return Error("dup");
  way.near_in = std::move(near);
  way.far_in = std::move(far);
  return way;
}

absl::StatusOr<Way> MakeUdp() {
  sockaddr_in near_address, far_address;
  auto near = Bind(SOCK_DGRAM, &near_address);
  if (!near.ok()) return near.status();
  auto far = Bind(SOCK_DGRAM, &far_address);
  if (!far.ok()) return far.status();
  if (auto status = ConnectTo(*near, far_address); !status.ok()) return status;
  if (auto status = ConnectTo(*far, near_address); !status.ok()) return status;
  return FromSockets(*std::move(near), *std::move(far));
}

absl::StatusOr<Way> MakeTcp() {
  sockaddr_in address, ignored;
  auto listener = Bind(SOCK_STREAM, &address);
  if (!listener.ok()) return listener.status();
  if (::listen(listener->get(), 1) != 0) return Error("listen");
  auto near = Bind(SOCK_STREAM, &ignored);
  if (!near.ok()) return near.status();
  if (auto status = ConnectTo(*near, address); !status.ok()) return status;
  UniqueFd far(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!far) return Error("accept");
  const int on = 1;
  for (int fd : {near->get(), far.get()}) {
    if (::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
      return Error("TCP_NODELAY");
  }
  return FromSockets(*std::move(near), std::move(far));
}

// An eventfd wants a number that is not 0.
constexpr std::array<uint8_t, kWordBytes> kWord = {1};

bool Put(const UniqueFd& fd) {
  return ::write(fd.get(), kWord.data(), kWordBytes) ==
         static_cast<ssize_t>(kWordBytes);
}

// Spins if the descriptor does not block.
bool Take(const UniqueFd& fd) {
  std::array<uint8_t, kWordBytes> word;
  size_t have = 0;
  while (have < kWordBytes) {
    const ssize_t n = ::read(fd.get(), word.data() + have, kWordBytes - have);
    if (n > 0) {
      have += static_cast<size_t>(n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      return false;
    }
  }
  return true;
}

absl::StatusOr<Way> Make(Peer peer) {
  switch (peer) {
    case Peer::kUdp:
      return MakeUdp();
    case Peer::kTcp:
      return MakeTcp();
  }
  return absl::InternalError("no such peer");
}

}  // namespace

absl::StatusOr<BareWakeUp> BareWakeUp::Make() {
  BareWakeUp made;
  made.near_.reset(eventfd(0, EFD_CLOEXEC));
  made.far_.reset(eventfd(0, EFD_CLOEXEC));
  if (!made.near_ || !made.far_) return Error("eventfd");
  return made;
}

bool BareWakeUp::AskAndAwait() const { return Put(far_) && Take(near_); }
bool BareWakeUp::AwaitAndAnswer() const { return Take(far_) && Put(near_); }

absl::StatusOr<RoundTrip> PeerRoundTrip(const BenchEnds& ends, Peer peer,
                                        bool spin, int rounds) {
  auto way = Make(peer);
  if (!way.ok()) return way.status();
  if (spin) {
    for (const UniqueFd* fd : {&way->near_in, &way->far_in}) {
      const int flags = ::fcntl(fd->get(), F_GETFL);
      if (flags < 0 || ::fcntl(fd->get(), F_SETFL, flags | O_NONBLOCK) != 0)
        return Error("O_NONBLOCK");
    }
  }
  // It echoes until it is ended.
  BenchEnds here;  // not where another network namespace is
  here.far_cpu = ends.far_cpu;
  auto far = FarEnd::Start(here, [&](const std::function<void()>& ready, int) {
    ::alarm(kPatienceSeconds);
    ready();
    while (Take(way->far_in) && Put(way->far_out)) {
    }
    return Error("the way to the other process broke");
  });
  if (!far.ok()) return far.status();
  ::alarm(kPatienceSeconds);
  SystemClock clock;
  Latencies times(static_cast<size_t>(rounds));
  const int warm_up = rounds / 10;
  for (int i = 0; i < rounds + warm_up; ++i) {
    const uint64_t begin = clock.NowNs();
    if (!Put(way->near_out) || !Take(way->near_in))
      return Error("the way to the other process broke");
    if (i >= warm_up) times.Add(clock.NowNs() - begin);
  }
  ::alarm(0);
  return RoundTrip{times.Quantile(0.5), times.Quantile(0.99)};
}

}  // namespace tripwire::tools

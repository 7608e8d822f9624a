// SPDX-License-Identifier: BSD-3-Clause
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "nic/api/stats/counters.h"
#include "nic/api/stats/stats.h"
#include "nic/api/stats/stats.pb.h"
#include "nic/api/stats/telemetry.h"
#include "nic/base/fd.h"
#include "nic/base/random.h"
#include "nic/port/port_spec.h"

namespace tripwire::stats {
namespace {

constexpr timeval kSendTimeout = {.tv_sec = 1, .tv_usec = 0};
// For the question, which is sent together with connecting.
constexpr timeval kQuestionTimeout = {.tv_sec = 0, .tv_usec = 200'000};

absl::Status Failure(const std::string& what) {
  return absl::ErrnoToStatus(errno, what);
}

absl::StatusOr<UniqueFd> Listen(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(
        absl::StrCat("socket path too long (", path.size(), " bytes, at most ",
                     sizeof address.sun_path - 1, "): ", path));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Failure("socket");
  // The mode must be right from the first instant: set on the socket, which
  // bind(2) copies to the file (unlike umask, no other thread is affected).
  if (::fchmod(fd.get(), 0600) != 0) return Failure("fchmod");
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) !=
      0) {
    return Failure(absl::StrCat("cannot make socket ", path));
  }
  if (::listen(fd.get(), 8) != 0) {
    ::unlink(path.c_str());
    return Failure(absl::StrCat("cannot listen on ", path));
  }
  return fd;
}

// Makes the directory, and sure that nobody else can put sockets into it.
absl::Status Prepare(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return Failure(absl::StrCat("cannot make ", directory));
  }
  struct stat info;
  if (::lstat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, " is not a directory"));
  }
  if (info.st_uid != ::geteuid() || (info.st_mode & 0022) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(directory, " can be written to by others"));
  }
  return absl::OkStatus();
}

}  // namespace

class Server::Impl {
 public:
  Impl(Nic& nic, Options options, std::string path, UniqueFd listener,
       UniqueFd stop)
      : nic_(nic),
        options_(std::move(options)),
        path_(std::move(path)),
        listener_(std::move(listener)),
        stop_(std::move(stop)),
        start_ns_(clock_.NowNs()),
        telemetry_(nic, options_.program),
        thread_([this] { Run(); }) {}

  ~Impl() {
    const uint64_t one = 1;
    while (::write(stop_.get(), &one, sizeof one) < 0 && errno == EINTR) {
    }
    thread_.join();
    ::unlink(path_.c_str());
  }

  const std::string& path() const { return path_; }

 private:
  void Run() {
    pollfd waits[] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    for (;;) {
      if (::poll(waits, 2, -1) < 0) continue;  // EINTR
      if (waits[1].revents != 0) return;
      UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (peer) {
        Answer(peer.get());
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
        // The connection stays pending and poll would spin on it; wait for the
        // shortage to pass, or for the end.
        ::poll(&waits[1], 1, 1000);
      }
    }
  }

  void Answer(int peer) {
    ::setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &kSendTimeout,
                 sizeof kSendTimeout);
    const uint64_t rows = ReadQuestion(peer);
    pb::ProcessStats message;
    message.set_program(options_.program);
    message.set_pid(static_cast<uint32_t>(::getpid()));
    message.set_node(nic_.node());
    message.set_detail(options_.detail);
    message.set_uptime_ns(clock_.NowNs() - start_ns_);
    for (const Group& group : Groups(nic_)) Add(message, group);
    if (options_.extra) {
      for (const Group& group : options_.extra()) Add(message, group);
    }
    for (const Table& table : Tables(nic_, rows)) Add(message, table);
    const std::string bytes = message.SerializeAsString();
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n =
          ::send(peer, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return;
      sent += static_cast<size_t>(n);
    }
  }

  // How many rows the visitor wants.
  static uint64_t ReadQuestion(int peer) {
    ::setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &kQuestionTimeout,
                 sizeof kQuestionTimeout);
    char bytes[64];
    size_t length = 0;
    while (length < sizeof bytes) {
      const ssize_t n = ::recv(peer, bytes + length, sizeof bytes - length, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      length += static_cast<size_t>(n);
    }
    pb::Request request;
    if (!request.ParseFromArray(bytes, static_cast<int>(length)) ||
        !request.has_rows()) {
      return kUsualRows;
    }
    return std::min(request.rows(), kMostRows);
  }

  static void Add(pb::ProcessStats& message, const Table& table) {
    pb::Table* added = message.add_tables();
    added->set_name(table.name);
    added->set_activity(table.activity);
    added->set_all(table.all);
    for (const std::string& column : table.columns) added->add_columns(column);
    for (const std::vector<Cell>& row : table.rows) {
      pb::Row* r = added->add_rows();
      for (const Cell& cell : row) {
        pb::Cell* c = r->add_cells();
        if (const auto* number = std::get_if<uint64_t>(&cell)) {
          c->set_number(*number);
        } else if (const auto* text = std::get_if<std::string>(&cell)) {
          c->set_text(*text);
        } else {
          c->set_truth(std::get<bool>(cell));
        }
      }
    }
  }

  static void Add(pb::ProcessStats& message, const Group& group) {
    pb::Group* added = message.add_groups();
    added->set_name(group.name);
    for (const Counter& counter : group.counters) {
      pb::Counter* c = added->add_counters();
      c->set_name(counter.name);
      c->set_value(counter.value);
    }
  }

  Nic& nic_;
  const Options options_;
  const std::string path_;
  SystemClock clock_;
  UniqueFd listener_;
  UniqueFd stop_;
  const uint64_t start_ns_;
  TelemetrySource telemetry_;
  std::thread thread_;  // last: it uses all of the above
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;
const std::string& Server::path() const { return impl_->path(); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(Nic& nic,
                                                      Options options) {
  const std::string directory =
      options.directory.empty() ? DefaultPortDirectory() : options.directory;
  if (auto status = Prepare(directory); !status.ok()) return status;
  // Processes in different pid namespaces may share the directory, hence the
  // number besides the pid.
  Random random = Random::FromSystem();
  std::string path =
      absl::StrCat(directory, "/", options.program, ".", ::getpid(), ".",
                   absl::Hex(random.Next32(), absl::kZeroPad8), ".stats");
  auto listener = Listen(path);
  if (!listener.ok()) return listener.status();
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop) {
    const absl::Status status = Failure("eventfd");
    ::unlink(path.c_str());
    return status;
  }
  return std::unique_ptr<Server>(new Server(
      std::make_unique<Impl>(nic, std::move(options), std::move(path),
                             *std::move(listener), std::move(stop))));
}

}  // namespace tripwire::stats

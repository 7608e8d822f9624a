// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/mount_session.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "fuse-client/fuse_abi.h"
#include "fuse-client/mount_table.h"
#include "nic/base/fd.h"
#include "spdlog/spdlog.h"

extern char** environ;

namespace tripwire::fuse {
namespace {

// What the FUSE library said last; it reports errors by text only.
thread_local std::string library_message;

void TakeLibraryMessage(fuse_log_level level, const char* format, va_list args) {
  char text[512];
  std::vsnprintf(text, sizeof(text), format, args);
  std::string line = text;
  while (!line.empty() && line.back() == '\n') line.pop_back();
  library_message = line;
  if (level <= FUSE_LOG_ERR) spdlog::debug("libfuse: {}", line);
}

// Collects what is written to stderr (by fusermount3, say) while it exists.
class StderrTaken {
 public:
  StderrTaken() : text_(memfd_create("stderr", MFD_CLOEXEC)), saved_(dup(2)) {
    std::fflush(stderr);
    if (text_ && saved_) dup2(text_.get(), 2);
  }
  ~StderrTaken() { GiveBack(); }
  std::string GiveBack() {
    if (!saved_) return {};
    std::fflush(stderr);
    dup2(saved_.get(), 2);
    saved_.reset();
    char text[1024];
    const ssize_t n = pread(text_.get(), text, sizeof(text), 0);
    std::string line(text, n > 0 ? static_cast<size_t>(n) : 0);
    while (!line.empty() && line.back() == '\n') line.pop_back();
    return absl::StrReplaceAll(line, {{"\n", "; "}});
  }

 private:
  UniqueFd text_;
  UniqueFd saved_;
};

// Runs a program and waits; its exit status, or -1.
int RunProgram(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  if (posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ) != 0) {
    return -1;
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

ssize_t PlainRead(int fd, void* buffer, size_t size, void*) {
  return read(fd, buffer, size);
}

// The kernel's offer in INIT, while the handshake runs.
thread_local const fuse_init_in* init_offer = nullptr;

// All answers pass here. The one to INIT gets what the library cannot ask for.
ssize_t Send(int fd, iovec* iov, int count, void*) {
  if (init_offer && count == 2 && iov[1].iov_len >= sizeof(fuse_init_out)) {
    auto* out = static_cast<fuse_init_out*>(iov[1].iov_base);
    const uint64_t offered =
        init_offer->flags | (uint64_t{init_offer->flags2} << 32);
    if (offered & FUSE_HANDLE_KILLPRIV_V2) {
      // Without it each write(2) costs a look at security.capability first.
      out->flags &= ~static_cast<uint32_t>(FUSE_HANDLE_KILLPRIV);
      out->flags |= FUSE_HANDLE_KILLPRIV_V2;
    }
    if ((offered & FUSE_INIT_EXT) && (offered & abi::kDirectIoAllowMmap)) {
      out->flags |= FUSE_INIT_EXT;
      out->flags2 |= static_cast<uint32_t>(abi::kDirectIoAllowMmap >> 32);
    }
  }
  return writev(fd, iov, count);
}

void OnWakeSignal(int) {}

constexpr int kWakeSignal = SIGUSR2;  // ends a thread's read(2)

}  // namespace

absl::StatusOr<std::unique_ptr<MountSession>> MountSession::Mount(
    SessionOptions options, FileSystem* fs) {
  std::unique_ptr<MountSession> session(new MountSession(std::move(options), fs));
  if (absl::Status status = session->Open(); !status.ok()) return status;
  if (absl::Status status = session->Handshake(); !status.ok()) {
    session->Detach();
    return status;
  }
  fs->AttachKernel(session.get());
  session->StartThread();
  return session;
}

absl::Status MountSession::Open() {
  fuse_set_log_func(&TakeLibraryMessage);
  const auto escaped = [](const std::string& text) {
    return absl::StrReplaceAll(text, {{"\\", "\\\\"}, {",", "\\,"}});
  };
  std::vector<std::string> words = options_.mount_options;
  words.push_back(absl::StrCat("fsname=", escaped(options_.source)));
  words.push_back("subtype=tripwire");
  words.push_back(absl::StrCat("max_read=", options_.max_read));
  const std::string joined = absl::StrJoin(words, ",");
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&args, "tw-mount");
  fuse_opt_add_arg(&args, "-o");
  fuse_opt_add_arg(&args, joined.c_str());
  StderrTaken taken;
  library_message.clear();
  session_ = fuse_session_new(&args, &FuseOperations(), sizeof(fuse_lowlevel_ops), fs_);
  fuse_opt_free_args(&args);
  if (!session_) {
    return absl::InvalidArgumentError(
        absl::StrCat("the mount options were refused: ", library_message,
                     taken.GiveBack()));
  }
  if (fuse_session_mount(session_, options_.mountpoint.c_str()) != 0) {
    const std::string said = taken.GiveBack();
    return absl::InternalError(absl::StrCat(
        "cannot mount on ", options_.mountpoint, ": ",
        said.empty() ? library_message : said));
  }
  mounted_ = true;
  fd_ = fuse_session_fd(session_);
  fuse_custom_io io = {};
  io.writev = &Send;
  io.read = &PlainRead;
  if (fuse_session_custom_io(session_, &io, fd_) != 0) {
    return absl::InternalError("the FUSE library refused our input and output");
  }
  device_ = DeviceOfMount(options_.mountpoint);
  return absl::OkStatus();
}

// The kernel's first request, INIT, before any other thread looks.
absl::Status MountSession::Handshake() {
  std::vector<char> buffer(kRequestBytes);
  ssize_t n;
  do {
    n = read(fd_, buffer.data(), buffer.size());
  } while (n < 0 && (errno == EINTR || errno == ENOENT));
  if (n < static_cast<ssize_t>(sizeof(fuse_in_header) + 16)) {
    return absl::InternalError(absl::StrCat("the kernel closed the FUSE connection: ",
                                            std::strerror(n < 0 ? errno : EPROTO)));
  }
  fuse_init_in offer = {};
  std::memcpy(&offer, buffer.data() + sizeof(fuse_in_header),
              std::min(sizeof(offer), static_cast<size_t>(n) - sizeof(fuse_in_header)));
  if (!(offer.flags & FUSE_INIT_EXT)) offer.flags2 = 0;
  init_offer = &offer;
  fuse_buf buf = {};
  buf.mem = buffer.data();
  buf.size = static_cast<size_t>(n);
  fuse_session_process_buf(session_, &buf);
  init_offer = nullptr;
  if (fuse_session_exited(session_)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the kernel and the FUSE library do not agree: ", library_message));
  }
  return absl::OkStatus();
}

void MountSession::StartThread() {
  MutexLock lock(&mu_);
  if (over_.load() ||
      threads_.size() >= static_cast<size_t>(options_.max_threads)) {
    return;
  }
  reading_.fetch_add(1);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 256 << 10);
  pthread_t thread;
  const int error = pthread_create(
      &thread, &attributes,
      [](void* self) -> void* {
        static_cast<MountSession*>(self)->Work();
        return nullptr;
      },
      this);
  pthread_attr_destroy(&attributes);
  if (error == 0) {
    threads_.insert(thread);
  } else {
    reading_.fetch_sub(1);
  }
}

void MountSession::TookRequest() {
  const int left = reading_.fetch_sub(1) - 1;
  // Two threads may both be right about the least; either will do.
  if (left < least_reading_.load(std::memory_order_relaxed)) {
    least_reading_.store(left, std::memory_order_relaxed);
  }
  if (left == 0) StartThread();
}

// Whether this thread, having answered, may end.
bool MountSession::IsSpare() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  const int64_t now_ms = time.tv_sec * 1000 + time.tv_nsec / 1000000;
  int64_t end_ms = second_ends_ms_.load(std::memory_order_relaxed);
  if (now_ms >= end_ms &&
      second_ends_ms_.compare_exchange_strong(end_ms, now_ms + 1000)) {
    // One beyond what was needed stays, lest the next request but one starts one.
    spare_.store(least_reading_.exchange(reading_.load()) - 1);
  }
  int spare = spare_.load(std::memory_order_relaxed);
  while (spare > 0) {
    if (spare_.compare_exchange_weak(spare, spare - 1)) return true;
  }
  return false;
}

// One thread's life: read a request, make sure that somebody reads the next, answer.
void MountSession::Work() {
  struct sigaction action = {};
  action.sa_handler = &OnWakeSignal;  // without SA_RESTART: read(2) returns
  sigaction(kWakeSignal, &action, nullptr);
  sigset_t wake;
  sigemptyset(&wake);
  sigaddset(&wake, kWakeSignal);
  pthread_sigmask(SIG_UNBLOCK, &wake, nullptr);

  RequestBuffer buffer;
  while (!over_.load()) {
    if (!buffer) buffer = fs_->buffers().Take();  // the first, or a write has kept it
    const ssize_t n = buffer ? read(fd_, buffer.get(), kRequestBytes) : -1;
    if (n < 0) {
      if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
      if (errno == ENODEV) {
        gone_.store(true);
      } else {
        spdlog::error("reading from the kernel failed: {}", std::strerror(errno));
      }
      over_.store(true);
      break;
    }
    TookRequest();
    const auto size = static_cast<size_t>(n);
    if (!HandleOurselves(buffer.get(), size)) {
      current_request.buffer = &buffer;
      fuse_buf buf = {};
      buf.mem = buffer.get();
      buf.size = size;
      fuse_session_process_buf(session_, &buf);
      current_request.buffer = nullptr;
    }
    const int others = reading_.fetch_add(1);
    if (others >= options_.idle_threads || (others > 0 && IsSpare())) break;
  }
  // The others may all have got something to do meanwhile.
  if (reading_.fetch_sub(1) == 1) StartThread();
  buffer.reset();  // to the file system, which may go when the last thread has
  MutexLock lock(&mu_);
  threads_.erase(pthread_self());
}

bool MountSession::Wait(absl::Duration timeout) {
  MutexLock lock(&mu_);
  const auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return threads_.empty();
  };
  return mu_.AwaitWithTimeout(absl::Condition(&ended), timeout);
}

void MountSession::Abandon() {
  over_.store(true);
  // A signal may come just before its thread enters read(2), so: again.
  for (int i = 0; i < 20; ++i) {
    {
      MutexLock lock(&mu_);
      if (threads_.empty()) return;
      for (const pthread_t thread : threads_) pthread_kill(thread, kWakeSignal);
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
}

bool MountSession::TryUnmount() {
  if (!mounted_ || gone_.load()) return true;
  if (geteuid() == 0) {
    if (umount2(options_.mountpoint.c_str(), UMOUNT_NOFOLLOW) == 0 ||
        errno == EINVAL) {  // EINVAL: it is not a mount point any more
      mounted_ = false;
      return true;
    }
    return false;
  }
  StderrTaken quiet;
  if (RunProgram({"fusermount3", "-u", "-q", "--", options_.mountpoint}) != 0) {
    return DeviceOfMount(options_.mountpoint) != device_;
  }
  mounted_ = false;
  return true;
}

void MountSession::Detach() {
  if (!mounted_ || gone_.load()) return;
  mounted_ = false;
  if (DeviceOfMount(options_.mountpoint) != device_) return;  // not ours any more
  DetachMount(options_.mountpoint);
}

MountSession::~MountSession() {
  Detach();
  Abandon();
  Wait();
  if (!session_) return;
  // Its own idea of unmounting would try again by name.
  fuse_session_destroy(session_);
}

bool MountSession::ForgetAttributes(uint64_t node_id) {
  return fuse_lowlevel_notify_inval_inode(session_, node_id, -1, 0) == 0;
}

bool MountSession::ForgetPages(uint64_t node_id) {
  return fuse_lowlevel_notify_inval_inode(session_, node_id, 0, 0) == 0;
}

void MountSession::ForgetName(uint64_t parent_id, const std::string& name) {
  fuse_lowlevel_notify_inval_entry(session_, parent_id, name.data(), name.size());
}

bool MountSession::ForgetAllNames() {
  if (!can_forget_all_names_.load(std::memory_order_relaxed)) return false;
  fuse_out_header header = {};
  header.len = sizeof(header);
  header.error = abi::kNotifyIncEpoch;
  if (write(fd_, &header, sizeof(header)) == sizeof(header)) return true;
  if (errno == EINVAL) can_forget_all_names_.store(false);
  return false;
}

}  // namespace tripwire::fuse

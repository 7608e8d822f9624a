// SPDX-License-Identifier: BSD-3-Clause
#define FUSE_USE_VERSION 312
#include "periph/tools/attach_disk.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "nic/base/fd.h"
#include "periph/client/control_channel.h"
#include "spdlog/spdlog.h"

extern char** environ;

namespace tripwire::periph {
namespace {

constexpr int kReadAheadKb = 4096;
constexpr unsigned kThreads = 64, kIdleThreads = 8;

thread_local std::string library_message;  // what libfuse said last

void TakeLibraryMessage(fuse_log_level, const char* format, va_list args) {
  char text[512];
  std::vsnprintf(text, sizeof text, format, args);
  library_message = text;
  while (!library_message.empty() && library_message.back() == '\n') library_message.pop_back();
}

// A program's exit status, -1 if it could not be run.
int RunProgram(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  if (posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ) != 0) return -1;
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The directory to mount on. What an attachment that was killed left there is removed.
absl::StatusOr<std::string> CheckDirectory(const std::string& path) {
  const auto say = [&path](const std::string& what) {
    return absl::StrCat("cannot attach to ", path, ": ", what);
  };
  struct stat st;
  if (stat(path.c_str(), &st) != 0 && errno == ENOTCONN) {
    spdlog::info("{}: removing a mount whose program is gone", path);
    if (umount2(path.c_str(), MNT_DETACH) != 0) {
      RunProgram({"fusermount3", "-u", "-q", "-z", "--", path});
    }
  }
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) == nullptr || stat(resolved, &st) != 0) {
    const int error = errno;
    const std::string why = say(std::strerror(error));
    if (error == ENOENT) return absl::NotFoundError(why + "; create it with mkdir -p");
    return absl::UnavailableError(why);
  }
  if (!S_ISDIR(st.st_mode)) {
    return absl::InvalidArgumentError(
        say("it is not a directory; the disk becomes a file in a directory"));
  }
  struct stat parent;
  if (stat(absl::StrCat(resolved, "/..").c_str(), &parent) == 0 && parent.st_dev != st.st_dev) {
    return absl::AlreadyExistsError(say("something is mounted there"));
  }
  return std::string(resolved);
}

// The mounted file system and the threads that serve it.
class Mount {
 public:
  Mount(DiskFile* file, std::string directory)
      : file_(file), directory_(std::move(directory)), over_(eventfd(0, EFD_CLOEXEC)) {}
  ~Mount() {
    if (thread_.joinable()) thread_.join();
    if (session_ != nullptr) fuse_session_destroy(session_);
  }

  absl::Status Start(const std::string& source, const AttachDiskOptions& options);
  int over_fd() const { return over_.get(); }
  // Unmounts: cleanly if nobody uses it. Does not return if threads cannot be had back.
  void End();

 private:
  bool IsOver(std::chrono::milliseconds timeout) const;
  bool TryUnmount();
  void TakeAway();

  DiskFile* const file_;
  const std::string directory_;
  const UniqueFd over_;
  fuse_session* session_ = nullptr;
  std::thread thread_;
};

absl::Status Mount::Start(const std::string& source, const AttachDiskOptions& options) {
  fuse_set_log_func(&TakeLibraryMessage);
  const auto escaped = [](const std::string& text) {
    return absl::StrReplaceAll(text, {{"\\", "\\\\"}, {",", "\\,"}});
  };
  std::vector<std::string> words = options.mount_options;
  words.push_back(absl::StrCat("fsname=", escaped(source)));
  words.insert(words.end(), {"subtype=tripwire-disk", "default_permissions", "auto_unmount"});
  words.push_back(absl::StrCat("max_read=", file_->disk().piece_bytes()));
  if (file_->read_only()) words.push_back("ro");
  const std::string joined = absl::StrJoin(words, ",");
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  for (const char* word : {"tw-periph", "-o", joined.c_str()}) fuse_opt_add_arg(&args, word);
  library_message.clear();
  session_ = fuse_session_new(&args, &DiskFile::Operations(), sizeof(fuse_lowlevel_ops), file_);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the mount options were refused: ", library_message));
  }
  if (fuse_session_mount(session_, directory_.c_str()) != 0) {
    fuse_session_destroy(std::exchange(session_, nullptr));
    return absl::InternalError(absl::StrCat(
        "cannot mount on ", directory_, library_message.empty() ? "" : ": ", library_message));
  }
  thread_ = std::thread([this] {
    fuse_loop_config* config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(config, 0);
    fuse_loop_cfg_set_max_threads(config, kThreads);
    fuse_loop_cfg_set_idle_threads(config, kIdleThreads);
    fuse_session_loop_mt(session_, config);
    fuse_loop_cfg_destroy(config);
    const uint64_t one = 1;
    if (write(over_.get(), &one, sizeof one) < 0) spdlog::error("eventfd failed");
  });
  return absl::OkStatus();
}

bool Mount::IsOver(std::chrono::milliseconds timeout) const {
  pollfd news = {over_.get(), POLLIN, 0};
  return poll(&news, 1, static_cast<int>(timeout.count())) > 0;
}

bool Mount::TryUnmount() {
  if (geteuid() == 0) {
    return umount2(directory_.c_str(), UMOUNT_NOFOLLOW) == 0 || errno == EINVAL;
  }
  return RunProgram({"fusermount3", "-u", "-q", "--", directory_}) == 0;
}

// For those who still use it, I/O errors follow.
void Mount::TakeAway() {
  if (geteuid() == 0) {
    umount2(directory_.c_str(), MNT_FORCE | UMOUNT_NOFOLLOW);  // ends the connection
    umount2(directory_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  } else {
    RunProgram({"fusermount3", "-u", "-q", "-z", "--", directory_});
  }
}

void Mount::End() {
  using std::chrono::milliseconds;
  if (!IsOver(milliseconds(0))) {
    // Unmounting, and writing back, go through our own threads, and may wait for a
    // server that is gone: so on a thread that can be left behind.
    std::promise<bool> promise;
    std::future<bool> clean = promise.get_future();
    std::thread([this, promise = std::move(promise)]() mutable {
      bool unmounted = TryUnmount();
      if (!unmounted) {
        spdlog::warn("{} is in use: taking it away all the same", directory_);
        const UniqueFd file(open(absl::StrCat(directory_, "/", file_->name()).c_str(),
                                 O_RDONLY | O_CLOEXEC));
        if (file) fsync(file.get());
      }
      promise.set_value(unmounted);
    }).detach();
    const bool answered = clean.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
    if (!answered || !clean.get()) TakeAway();
    if (!answered || !IsOver(milliseconds(2000))) {
      // Threads wait for a server that does not answer, or (as no root) for users who
      // do not let go. The end of the process is the end of the connection.
      spdlog::warn("ending while operations are under way");
      spdlog::shutdown();
      std::_Exit(0);
    }
  }
  thread_.join();
}

// The kernel reads ahead in pieces of 128 KiB unless somebody says more.
void SetReadAhead(const std::string& directory) {
  struct stat st;
  if (stat(directory.c_str(), &st) != 0) return;
  std::ofstream(absl::StrCat("/sys/class/bdi/", major(st.st_dev), ":", minor(st.st_dev),
                             "/read_ahead_kb"))
      << kReadAheadKb;
}

void WaitForTheEnd(int stop_fd, int over_fd) {
  pollfd fds[] = {{stop_fd, POLLIN, 0}, {over_fd, POLLIN, 0}};
  while (poll(fds, 2, -1) < 0) {  // EINTR
  }
}

}  // namespace

absl::Status AttachDisk(Nic& nic, const AttachDiskOptions& options, int stop_fd,
                        const std::function<void(const std::string& path)>& ready) {
  auto directory = CheckDirectory(options.directory);
  if (!directory.ok()) return directory.status();
  Peripherals::Options connect;
  connect.node = options.node;
  connect.program = "tw-periph attach";
  auto channel = ControlChannel::Connect(nic, connect);
  if (!channel.ok()) return channel.status();
  RemoteDisk::Options open;
  open.device = options.device;
  open.read_only = options.read_only;
  open.exclusive = !options.shared;
  auto disk = RemoteDisk::Open(*channel, open);
  if (!disk.ok()) return disk.status();

  const std::string source = absl::StrCat((*channel)->node(), ":", options.device);
  DiskFile file(*disk, options.device, options.cache);
  Mount mount(&file, *directory);
  if (auto status = mount.Start(source, options); !status.ok()) return status;
  SetReadAhead(*directory);
  spdlog::info("{} is {}/{}, {} bytes{}", source, *directory, options.device, file.size_bytes(),
               file.read_only() ? ", read-only" : "");
  ready(absl::StrCat(*directory, "/", options.device));
  WaitForTheEnd(stop_fd, mount.over_fd());
  mount.End();
  return absl::OkStatus();
}

}  // namespace tripwire::periph

// SPDX-License-Identifier: BSD-3-Clause
// The format: draft-ietf-opsawg-pcapng. Numbers are in the writer's byte order.
#include "nic/port/capture_file.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"

namespace tripwire {
namespace {

constexpr uint32_t kSectionHeaderBlock = 0x0a0d0d0a;
constexpr uint32_t kInterfaceBlock = 1;
constexpr uint32_t kPacketBlock = 6;
constexpr uint32_t kStatisticsBlock = 5;
constexpr uint16_t kEndOfOptions = 0;
constexpr int kLingerMs = 1000;

template <typename T>
void Put(std::vector<uint8_t>& out, T value) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof value);
}

void PutPadded(std::vector<uint8_t>& out, std::string_view bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
  out.resize((out.size() + 3) & ~size_t{3});
}

void PutOption(std::vector<uint8_t>& out, uint16_t code,
               std::string_view value) {
  Put<uint16_t>(out, code);
  Put<uint16_t>(out, static_cast<uint16_t>(value.size()));
  PutPadded(out, value);
}

// A block is its type, its length, what it says, and its length again.
size_t BeginBlock(std::vector<uint8_t>& out, uint32_t type) {
  const size_t begin = out.size();
  Put<uint32_t>(out, type);
  Put<uint32_t>(out, 0);
  return begin;
}

void EndBlock(std::vector<uint8_t>& out, size_t begin) {
  const auto length = static_cast<uint32_t>(out.size() + 4 - begin);
  std::memcpy(out.data() + begin + 4, &length, sizeof length);
  Put<uint32_t>(out, length);
}

void PutFileHeader(std::vector<uint8_t>& out, const PortInfo& port) {
  size_t begin = BeginBlock(out, kSectionHeaderBlock);
  Put<uint32_t>(out, 0x1a2b3c4d);  // tells the byte order
  Put<uint16_t>(out, 1);           // version 1.0
  Put<uint16_t>(out, 0);
  Put<int64_t>(out, -1);          // the section's length is not known
  PutOption(out, 4, "tripwire");  // shb_userappl
  Put<uint32_t>(out, kEndOfOptions);
  EndBlock(out, begin);

  begin = BeginBlock(out, kInterfaceBlock);
  Put<uint16_t>(out, 1);  // LINKTYPE_ETHERNET
  Put<uint16_t>(out, 0);
  Put<uint32_t>(out, 0);  // frames are whole
  PutOption(out, 2, std::string_view(port.name).substr(0, 1000));  // if_name
  PutOption(out, 6,
            {reinterpret_cast<const char*>(port.mac.bytes.data()),
             port.mac.bytes.size()});              // if_MACaddr
  PutOption(out, 9, std::string_view("\x09", 1));  // if_tsresol: nanoseconds
  Put<uint32_t>(out, kEndOfOptions);
  EndBlock(out, begin);
}

void PutTime(std::vector<uint8_t>& out, uint64_t time_ns) {
  Put<uint32_t>(out, static_cast<uint32_t>(time_ns >> 32));
  Put<uint32_t>(out, static_cast<uint32_t>(time_ns));
}

std::string_view Bytes(const uint64_t& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

void PutStatistics(std::vector<uint8_t>& out, uint64_t written,
                   uint64_t dropped) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const size_t begin = BeginBlock(out, kStatisticsBlock);
  Put<uint32_t>(out, 0);  // of interface 0
  PutTime(out, static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 +
                   static_cast<uint64_t>(now.tv_nsec));
  const uint64_t seen = written + dropped;
  PutOption(out, 4, Bytes(seen));     // isb_ifrecv
  PutOption(out, 5, Bytes(dropped));  // isb_ifdrop
  Put<uint32_t>(out, kEndOfOptions);
  EndBlock(out, begin);
}

absl::StatusOr<UniqueFd> OpenForWriting(const std::string& path) {
  // A FIFO is opened for reading, too: its reader may come later, or go.
  struct stat info {};
  const bool is_fifo =
      ::stat(path.c_str(), &info) == 0 && S_ISFIFO(info.st_mode);
  UniqueFd fd(::open(path.c_str(),
                     (is_fifo ? O_RDWR : O_WRONLY | O_CREAT) | O_CLOEXEC |
                         O_NONBLOCK | O_NOCTTY,
                     0600));
  if (!fd) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("cannot open capture ", path));
  }
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return absl::FailedPreconditionError(
        absl::StrCat("another capture writes to ", path));
  }
  if (::fstat(fd.get(), &info) == 0 && S_ISREG(info.st_mode) &&
      ::ftruncate(fd.get(), 0) != 0) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("cannot truncate capture ", path));
  }
  return fd;
}

}  // namespace

void AppendPacketBlock(const Frame& frame, CaptureDirection direction,
                       uint64_t time_ns, std::vector<uint8_t>& blocks) {
  const size_t begin = BeginBlock(blocks, kPacketBlock);
  Put<uint32_t>(blocks, 0);  // interface 0
  PutTime(blocks, time_ns);
  Put<uint32_t>(blocks, frame.total_bytes());
  Put<uint32_t>(blocks, frame.total_bytes());
  blocks.insert(blocks.end(), frame.data, frame.data + frame.length_bytes);
  if (frame.tail_bytes > 0) {
    blocks.insert(blocks.end(), frame.tail, frame.tail + frame.tail_bytes);
  }
  blocks.resize((blocks.size() + 3) & ~size_t{3});
  Put<uint16_t>(blocks, 2);  // epb_flags
  Put<uint16_t>(blocks, 4);
  Put<uint32_t>(blocks, static_cast<uint32_t>(direction));
  Put<uint32_t>(blocks, kEndOfOptions);
  EndBlock(blocks, begin);
}

absl::StatusOr<std::unique_ptr<CaptureFile>> CaptureFile::Open(
    const std::string& path, const PortInfo& port, size_t buffer_bytes) {
  auto fd = OpenForWriting(path);
  if (!fd.ok()) return fd.status();
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return absl::ErrnoToStatus(errno, "eventfd");
  auto file = std::unique_ptr<CaptureFile>(
      new CaptureFile(path, *std::move(fd), std::move(stop), buffer_bytes));
  std::vector<uint8_t> header;
  PutFileHeader(header, port);
  file->Append(header, 0);
  return file;
}

CaptureFile::CaptureFile(std::string path, UniqueFd fd, UniqueFd stop,
                         size_t buffer_bytes)
    : path_(std::move(path)),
      fd_(std::move(fd)),
      stop_(std::move(stop)),
      buffer_bytes_(buffer_bytes),
      thread_([this] { Run(); }) {}

CaptureFile::~CaptureFile() {
  {
    std::lock_guard lock(mutex_);
    PutStatistics(filling_, written_frames_, dropped_frames_);
    stopping_ = true;
  }
  news_.notify_one();
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t size = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void CaptureFile::Append(std::span<const uint8_t> blocks, size_t frames) {
  bool was_empty = false, must_say = false;
  {
    std::lock_guard lock(mutex_);
    if (has_failed() || filling_.size() + blocks.size() > buffer_bytes_) {
      dropped_frames_ += frames;
      must_say = !has_failed() && !std::exchange(said_dropped_, true);
    } else {
      was_empty = filling_.empty();
      filling_.insert(filling_.end(), blocks.begin(), blocks.end());
      filling_frames_ += frames;
      written_frames_ += frames;
    }
  }
  if (was_empty) news_.notify_one();
  if (must_say) {
    spdlog::warn(
        "capture {} does not keep up: it lacks frames (counted as "
        "capture_dropped)",
        path_);
  }
}

uint64_t CaptureFile::written_frames() const {
  std::lock_guard lock(mutex_);
  return written_frames_;
}

uint64_t CaptureFile::dropped_frames() const {
  std::lock_guard lock(mutex_);
  return dropped_frames_;
}

void CaptureFile::Run() {
  // Signals are the program's; a reader that left must not end it.
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
  std::unique_lock lock(mutex_);
  for (;;) {
    news_.wait(lock, [this] { return stopping_ || !filling_.empty(); });
    if (filling_.empty()) return;
    std::swap(filling_, writing_);
    const size_t frames = std::exchange(filling_frames_, 0);
    lock.unlock();
    const size_t missing =
        frames - (has_failed() ? 0 : WriteAll(writing_, frames));
    writing_.clear();
    lock.lock();
    written_frames_ -= missing;
    dropped_frames_ += missing;
  }
}

// Returns how many of the frames are in the file.
size_t CaptureFile::WriteAll(std::span<const uint8_t> blocks, size_t frames) {
  size_t written = 0;
  while (written < blocks.size()) {
    const ssize_t n =
        ::write(fd_.get(), blocks.data() + written, blocks.size() - written);
    if (n > 0) {
      written += static_cast<size_t>(n);
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
      return Fail(blocks, written, n == 0 ? ENOSPC : errno);
    } else if (errno == EAGAIN && !WaitForRoom()) {
      // The reader does not read, and the end has come.
      failed_.store(true, std::memory_order_relaxed);
      return 0;
    }
  }
  return frames;
}

// False when the time to end is over.
bool CaptureFile::WaitForRoom() {
  pollfd waits[] = {{fd_.get(), POLLOUT, 0}, {stop_.get(), POLLIN, 0}};
  ::poll(waits, 2, -1);
  if (waits[0].revents != 0 || waits[1].revents == 0) return true;
  return ::poll(waits, 1, kLingerMs) > 0;
}

size_t CaptureFile::Fail(std::span<const uint8_t> blocks, size_t written,
                         int error) {
  // Leaves a file that ends with a whole block.
  size_t whole = 0, frames = 0;
  for (uint32_t head[2]; whole + sizeof head <= written; whole += head[1]) {
    std::memcpy(head, blocks.data() + whole, sizeof head);
    if (head[1] > written - whole) break;
    if (head[0] == kPacketBlock) ++frames;
  }
  struct stat info {};
  if (::fstat(fd_.get(), &info) == 0 && S_ISREG(info.st_mode)) {
    const off_t excess = static_cast<off_t>(written - whole);
    [[maybe_unused]] const int ignored =
        ::ftruncate(fd_.get(), info.st_size - excess);
  }
  failed_.store(true, std::memory_order_relaxed);
  spdlog::warn("capture {} stops: {}", path_, std::strerror(error));
  return frames;
}

}  // namespace tripwire

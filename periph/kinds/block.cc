// SPDX-License-Identifier: BSD-3-Clause
// blk:PATH[,ro]: a block device, or a file with the image of one.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nic/base/fd.h"
#include "periph/device/device.h"

namespace tripwire::periph {
namespace {

#ifndef BLKGETDISKSEQ
#define BLKGETDISKSEQ _IOR(0x12, 128, uint64_t)
#endif

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::StatusCode::kResourceExhausted;
    case EIO:
    case EILSEQ:
    case EUCLEAN:
    case EREMOTEIO:
    case ENODATA:
    case EBADMSG:
      return absl::StatusCode::kDataLoss;
    case ENXIO:
    case ENODEV:
    case ENOMEDIUM:
    case ENOENT:
      return absl::StatusCode::kUnavailable;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case EBUSY:
    case EWOULDBLOCK:
      return absl::StatusCode::kFailedPrecondition;
    case EOPNOTSUPP:
      return absl::StatusCode::kUnimplemented;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status ErrnoError(int error, const std::string& what) {
  return absl::Status(CodeOf(error), absl::StrCat(what, ": ", std::strerror(error)));
}

// A number in /sys/dev/block/MAJOR:MINOR/queue; a partition has its disk's.
uint64_t QueueNumber(dev_t device, const char* name) {
  const std::string base = absl::StrCat("/sys/dev/block/", major(device), ":", minor(device));
  for (const char* queue : {"/queue/", "/../queue/"}) {
    uint64_t value = 0;
    if (std::ifstream(absl::StrCat(base, queue, name)) >> value) return value;
  }
  return 0;
}

// A file is named by its inode and birth, so that a copy put in its place is another.
uint64_t NameOfFile(int fd) {
  struct statx stx = {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &stx) != 0) return 0;
  const uint64_t birth = stx.stx_mask & STATX_BTIME
                             ? static_cast<uint64_t>(stx.stx_btime.tv_sec) * 1'000'000'000u +
                                   stx.stx_btime.tv_nsec
                             : 0;
  return (stx.stx_ino * 0x9e3779b97f4a7c15u) ^ birth;
}

absl::Status DescribeImage(int fd, const struct stat& st, Disk::Geometry* geometry) {
  geometry->size_bytes = static_cast<uint64_t>(st.st_size);
  geometry->medium = NameOfFile(fd);
  // Beyond the end there is nothing to lose by trying.
  geometry->can_discard = !geometry->read_only &&
                          fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, st.st_size,
                                    st.st_blksize) == 0;
  return absl::OkStatus();
}

absl::Status DescribeBlockDevice(int fd, const struct stat& st, const std::string& path,
                                 Disk::Geometry* geometry) {
  int logical = 0, is_read_only = 0;
  unsigned physical = 0;
  unsigned short rotational = 0;
  if (ioctl(fd, BLKGETSIZE64, &geometry->size_bytes) != 0 || ioctl(fd, BLKSSZGET, &logical) != 0) {
    return ErrnoError(errno, absl::StrCat(path, " does not tell its size"));
  }
  if (logical > 0) geometry->logical_block_bytes = static_cast<uint32_t>(logical);
  if (ioctl(fd, BLKPBSZGET, &physical) == 0 && physical > 0) {
    geometry->physical_block_bytes = physical;
  }
  if (ioctl(fd, BLKROTATIONAL, &rotational) == 0) geometry->rotational = rotational != 0;
  if (ioctl(fd, BLKROGET, &is_read_only) == 0 && is_read_only != 0) geometry->read_only = true;
  geometry->can_discard =
      !geometry->read_only && QueueNumber(st.st_rdev, "discard_max_bytes") > 0;
  // What was in the kernel's memory for a device that was pulled out is lost.
  if (ioctl(fd, BLKGETDISKSEQ, &geometry->appearance) != 0) geometry->appearance = 0;
  return absl::OkStatus();
}

// Keeps other programs away as long as anybody has the disk open here. Every opening has
// a descriptor of its own besides (so that each hears of failed writes), which is why the
// lock cannot be on those.
class Guard {
 public:
  // To be paired with Leave, if OK.
  absl::Status Enter(const std::string& path, bool is_device, bool read_only);
  void Leave() {
    std::lock_guard lock(mutex_);
    if (--users_ == 0) fd_.reset();
  }

 private:
  std::mutex mutex_;
  UniqueFd fd_;
  bool read_only_ = true;
  int users_ = 0;
};

// Two servers, or a server and a local mount, must not write to one disk.
absl::Status Guard::Enter(const std::string& path, bool is_device, bool read_only) {
  std::lock_guard lock(mutex_);
  if (users_ > 0 && (!read_only_ || read_only)) {
    ++users_;
    return absl::OkStatus();
  }
  const int exclusive = is_device && !read_only ? O_EXCL : 0;
  UniqueFd fd(open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | exclusive | O_CLOEXEC));
  if (!fd && errno == EBUSY) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is in use on its own machine: mounted, or open in another program"));
  }
  if (!fd) return ErrnoError(errno, path);
  // Our own readers' lock would be in the way of a writer's.
  if (users_ > 0) flock(fd_.get(), LOCK_UN);
  // Reading a device while its own machine writes to it is its reader's business.
  const bool locks = !is_device || !read_only;
  if (locks && flock(fd.get(), (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    const int error = errno;
    if (users_ > 0) flock(fd_.get(), LOCK_SH | LOCK_NB);
    if (error != EWOULDBLOCK) return ErrnoError(error, absl::StrCat("locking ", path));
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is locked by another program on its machine"));
  }
  fd_ = std::move(fd);
  read_only_ = read_only;
  ++users_;
  return absl::OkStatus();
}

class OpenMedium final : public Disk {
 public:
  OpenMedium(UniqueFd fd, bool is_device, Geometry geometry, std::string path,
             std::shared_ptr<Guard> guard)  // entered
      : fd_(std::move(fd)),
        is_device_(is_device),
        geometry_(geometry),
        path_(std::move(path)),
        guard_(std::move(guard)) {}
  ~OpenMedium() override {
    fd_.reset();
    guard_->Leave();
  }

  Geometry geometry() const override { return geometry_; }
  absl::Status Read(uint64_t offset, std::span<uint8_t> into) override;
  bool ReadAtOnce(uint64_t offset, std::span<uint8_t> into) override;
  absl::Status Write(uint64_t offset, std::span<const uint8_t> data, bool durable) override;
  absl::Status Flush() override;
  absl::Status Discard(uint64_t offset, uint64_t length) override;
  absl::Status WriteZeroes(uint64_t offset, uint64_t length, bool may_unmap) override;

 private:
  absl::Status CheckRange(uint64_t offset, uint64_t length) const;
  absl::Status CheckWrite(uint64_t offset, uint64_t length) const;
  absl::Status StoreZeroes(uint64_t offset, uint64_t length);
  absl::Status NotDurable(int error);

  UniqueFd fd_;
  const bool is_device_;
  const Geometry geometry_;
  const std::string path_;
  const std::shared_ptr<Guard> guard_;
  std::atomic<bool> tells_waits_{true};
  // The kernel tells of data it could not write once, and forgets the data.
  std::atomic<int> lost_{0};  // errno
};

absl::Status OpenMedium::CheckRange(uint64_t offset, uint64_t length) const {
  if (offset <= geometry_.size_bytes && length <= geometry_.size_bytes - offset) {
    return absl::OkStatus();
  }
  return absl::OutOfRangeError(absl::StrCat(length, " bytes at ", offset, " are not all on ", path_,
                                            ", which has ", geometry_.size_bytes));
}

absl::Status OpenMedium::CheckWrite(uint64_t offset, uint64_t length) const {
  if (geometry_.read_only) {
    return absl::PermissionDeniedError(absl::StrCat(path_, " is open read-only"));
  }
  return CheckRange(offset, length);
}

absl::Status OpenMedium::Read(uint64_t offset, std::span<uint8_t> into) {
  if (auto status = CheckRange(offset, into.size()); !status.ok()) return status;
  while (!into.empty()) {
    const ssize_t n = pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, absl::StrCat("reading ", path_, " at ", offset));
    if (n == 0) {
      return absl::DataLossError(
          absl::StrCat(path_, " ends at ", offset, ": it was cut off while in use"));
    }
    into = into.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

bool OpenMedium::ReadAtOnce(uint64_t offset, std::span<uint8_t> into) {
  if (!CheckRange(offset, into.size()).ok()) return false;
  const iovec all = {into.data(), into.size()};
  if (tells_waits_.load(std::memory_order_relaxed)) {  // only a hint
    const ssize_t n = preadv2(fd_.get(), &all, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    if (n >= 0 || errno != EOPNOTSUPP) return n == static_cast<ssize_t>(into.size());
    tells_waits_.store(false, std::memory_order_relaxed);
  }
  // A file system that cannot tell (tmpfs) is taken for a fast one.
  return Read(offset, into).ok();
}

absl::Status OpenMedium::Write(uint64_t offset, std::span<const uint8_t> data, bool durable) {
  if (auto status = CheckWrite(offset, data.size()); !status.ok()) return status;
  while (!data.empty()) {
    const iovec all = {const_cast<uint8_t*>(data.data()), data.size()};
    const ssize_t n =
        pwritev2(fd_.get(), &all, 1, static_cast<off_t>(offset), durable ? RWF_DSYNC : 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && durable) return NotDurable(errno);
    if (n < 0) return ErrnoError(errno, absl::StrCat("writing ", path_, " at ", offset));
    if (n == 0) return ErrnoError(ENOSPC, absl::StrCat("writing ", path_, " at ", offset));
    data = data.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::Status OpenMedium::Flush() {
  if (const int error = lost_.load()) return NotDurable(error);
  if (geometry_.read_only) return absl::OkStatus();
  int result;
  do {
    result = fdatasync(fd_.get());
  } while (result != 0 && errno == EINTR);
  if (result != 0) return NotDurable(errno);
  // Another thread may have been told what concerns both.
  const int error = lost_.load();
  return error == 0 ? absl::OkStatus() : NotDurable(error);
}

absl::Status OpenMedium::NotDurable(int error) {
  lost_.store(error);
  return ErrnoError(error, absl::StrCat("what was written to ", path_, " may be lost"));
}

absl::Status OpenMedium::Discard(uint64_t offset, uint64_t length) {
  if (auto status = CheckWrite(offset, length); !status.ok()) return status;
  if (!geometry_.can_discard) {
    return absl::UnimplementedError(absl::StrCat(path_, " cannot discard"));
  }
  if (!is_device_) {
    if (length == 0 || fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 static_cast<off_t>(offset), static_cast<off_t>(length)) == 0) {
      return absl::OkStatus();
    }
    return ErrnoError(errno, absl::StrCat("discarding from ", path_));
  }
  // Whole blocks only; the rest stays, as it may.
  const uint64_t block = geometry_.logical_block_bytes;
  const uint64_t begin = offset + (block - offset % block) % block;
  const uint64_t end = (offset + length) / block * block;
  uint64_t range[2] = {begin, begin < end ? end - begin : 0};
  if (range[1] == 0 || ioctl(fd_.get(), BLKDISCARD, range) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("discarding from ", path_));
}

absl::Status OpenMedium::WriteZeroes(uint64_t offset, uint64_t length, bool may_unmap) {
  if (auto status = CheckWrite(offset, length); !status.ok()) return status;
  // A device zeroes whole blocks; what is left over at both ends is written.
  const uint64_t block = is_device_ ? geometry_.logical_block_bytes : 1;
  const uint64_t begin = offset + (block - offset % block) % block;
  const uint64_t end = (offset + length) / block * block;
  if (begin >= end) return StoreZeroes(offset, length);
  if (auto status = StoreZeroes(offset, begin - offset); !status.ok()) return status;
  if (auto status = StoreZeroes(end, offset + length - end); !status.ok()) return status;
  // For files and devices alike: the first may give space back, the second keeps it.
  for (const int mode : {FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE}) {
    if (mode == FALLOC_FL_PUNCH_HOLE && !may_unmap) continue;
    if (fallocate(fd_.get(), mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                  static_cast<off_t>(end - begin)) == 0) {
      return absl::OkStatus();
    }
    if (errno != EOPNOTSUPP && errno != EINVAL && errno != EINTR) {
      return ErrnoError(errno, absl::StrCat("zeroing ", path_));
    }
  }
  return StoreZeroes(begin, end - begin);
}

absl::Status OpenMedium::StoreZeroes(uint64_t offset, uint64_t length) {
  static constexpr size_t kPiece = 256 << 10;
  static const std::vector<uint8_t> zeroes(kPiece);
  while (length > 0) {
    const size_t piece = std::min<uint64_t>(length, kPiece);
    if (auto status = Write(offset, {zeroes.data(), piece}, false); !status.ok()) return status;
    offset += piece;
    length -= piece;
  }
  return absl::OkStatus();
}

class BlockDevice final : public Device {
 public:
  BlockDevice(std::string path, bool read_only) : path_(std::move(path)), read_only_(read_only) {}
  DeviceInfo Describe() override;
  absl::StatusOr<std::shared_ptr<Disk>> OpenDisk(bool read_only) override;

 private:
  const std::string path_;
  const bool read_only_;
  const std::shared_ptr<Guard> guard_ = std::make_shared<Guard>();
};

DeviceInfo BlockDevice::Describe() {
  DeviceInfo info;
  info.disk = true;
  info.description = path_;
  struct stat st;
  const UniqueFd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd || fstat(fd.get(), &st) != 0) {
    info.present = false;
    info.why_absent = absl::StrCat(path_, ": ", std::strerror(errno));
    return info;
  }
  uint64_t bytes = static_cast<uint64_t>(st.st_size);
  const bool is_device = S_ISBLK(st.st_mode);
  if (is_device && ioctl(fd.get(), BLKGETSIZE64, &bytes) != 0) bytes = 0;
  info.description = absl::StrCat(is_device ? "block device " : "disk image ", path_, ", ", bytes,
                                  " bytes", read_only_ ? ", read-only" : "");
  return info;
}

absl::StatusOr<std::shared_ptr<Disk>> BlockDevice::OpenDisk(bool read_only) {
  read_only = read_only || read_only_;
  UniqueFd fd(open(path_.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK));
  if (!fd && errno == EROFS && !read_only) {
    read_only = true;
    fd.reset(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  }
  if (!fd) return ErrnoError(errno, path_);
  struct stat st;
  if (fstat(fd.get(), &st) != 0) return ErrnoError(errno, path_);
  const bool is_device = S_ISBLK(st.st_mode);
  if (!is_device && !S_ISREG(st.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, " is neither a block device nor a file"));
  }
  Disk::Geometry geometry;
  geometry.read_only = read_only;
  if (auto status = guard_->Enter(path_, is_device, read_only); !status.ok()) return status;
  const absl::Status status = is_device
                                  ? DescribeBlockDevice(fd.get(), st, path_, &geometry)
                                  : DescribeImage(fd.get(), st, &geometry);
  // From here on its destructor leaves.
  auto medium = std::make_shared<OpenMedium>(std::move(fd), is_device, geometry, path_, guard_);
  if (!status.ok()) return status;
  if (geometry.size_bytes == 0) {
    return absl::FailedPreconditionError(absl::StrCat(path_, " is empty: it is no disk"));
  }
  return medium;
}

absl::StatusOr<std::unique_ptr<Device>> MakeBlock(const std::string& argument, Clock&) {
  absl::string_view path = argument;
  const bool read_only = absl::ConsumeSuffix(&path, ",ro");
  if (path.empty()) return absl::InvalidArgumentError("blk: needs a path, as in blk:/dev/sdb");
  struct stat st;
  const std::string name(path);
  if (stat(name.c_str(), &st) == 0 && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is neither a block device nor a file"));
  }
  return std::make_unique<BlockDevice>(name, read_only);
}

const RegisterKind kBlock{{"blk", "blk:PATH[,ro]", "a block device, or a file with a disk's image",
                           &MakeBlock}};

}  // namespace
}  // namespace tripwire::periph

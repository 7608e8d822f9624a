// SPDX-License-Identifier: BSD-3-Clause
// The kind blk, on images: what is on the disk, what is refused, what is locked.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "periph/device/device.h"
#include "tests/unit/periph/disk/image.h"

namespace tripwire::periph {
namespace {

constexpr uint64_t kMiB = 1 << 20;

using Data = std::vector<uint8_t>;

class BlockTest : public ::testing::Test {
 protected:
  std::unique_ptr<Device> Make(const std::string& spec) {
    auto device = MakeDevice(spec, clock_);
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? *std::move(device) : nullptr;
  }
  std::shared_ptr<Disk> Open(bool read_only = false) {
    auto disk = device_->OpenDisk(read_only);
    EXPECT_TRUE(disk.ok()) << disk.status();
    return disk.ok() ? *std::move(disk) : nullptr;
  }
  Data ReadAll(Disk& disk, uint64_t offset, size_t length) {
    Data data(length);
    EXPECT_TRUE(disk.Read(offset, data).ok());
    return data;
  }

  SystemClock clock_;
  Image image_{4 * kMiB};
  std::unique_ptr<Device> device_ = Make("blk:" + image_.path());
};

TEST_F(BlockTest, SaysWhatItIs) {
  const auto disk = Open();
  EXPECT_EQ(disk->geometry().size_bytes, 4 * kMiB);
  EXPECT_FALSE(disk->geometry().read_only);
  EXPECT_NE(disk->geometry().medium, 0u);
  const DeviceInfo info = device_->Describe();
  EXPECT_TRUE(info.disk);
  EXPECT_TRUE(info.present);
  EXPECT_NE(info.description.find(image_.path()), std::string::npos);
}

TEST_F(BlockTest, ReadsWhatWasWritten) {
  const auto disk = Open();
  const Data data = RandomData(1, 70'001);
  ASSERT_TRUE(disk->Write(12'345, data, false).ok());
  EXPECT_EQ(ReadAll(*disk, 12'345, data.size()), data);
  ASSERT_TRUE(disk->Write(4 * kMiB - data.size(), data, true).ok());
  EXPECT_EQ(ReadAll(*disk, 4 * kMiB - data.size(), data.size()), data);
  EXPECT_TRUE(disk->Flush().ok());
  Data at_once(data.size());
  EXPECT_TRUE(disk->ReadAtOnce(12'345, at_once));
  EXPECT_EQ(at_once, data);
}

TEST_F(BlockTest, WhatIsNotAllOnTheDiskIsRefusedWhole) {
  const auto disk = Open();
  Data data(4096, 7);
  for (const uint64_t offset : {4 * kMiB - 4095, 4 * kMiB, 4 * kMiB + 1, UINT64_MAX - 4095,
                                UINT64_MAX, uint64_t{1} << 63}) {
    EXPECT_TRUE(absl::IsOutOfRange(disk->Read(offset, data))) << offset;
    EXPECT_TRUE(absl::IsOutOfRange(disk->Write(offset, data, false))) << offset;
    EXPECT_TRUE(absl::IsOutOfRange(disk->Discard(offset, 4096))) << offset;
    EXPECT_TRUE(absl::IsOutOfRange(disk->WriteZeroes(offset, 4096, true))) << offset;
    EXPECT_FALSE(disk->ReadAtOnce(offset, data)) << offset;
  }
  EXPECT_TRUE(absl::IsOutOfRange(disk->Discard(1, UINT64_MAX)));
  EXPECT_TRUE(absl::IsOutOfRange(disk->WriteZeroes(4096, 4 * kMiB, false)));
  struct stat st;
  ASSERT_EQ(stat(image_.path().c_str(), &st), 0);
  EXPECT_EQ(static_cast<uint64_t>(st.st_size), 4 * kMiB) << "the image grew";
  EXPECT_EQ(ReadAll(*disk, 4 * kMiB - 4096, 4096), Data(4096, 0));
}

TEST_F(BlockTest, ZeroesAreZeroAndUnmappedSpaceIsGivenBack) {
  const auto disk = Open();
  if (!disk->geometry().can_discard) GTEST_SKIP() << "no holes on this file system";
  const Data data = RandomData(2, kMiB);
  for (uint64_t at = 0; at < 4 * kMiB; at += kMiB) ASSERT_TRUE(disk->Write(at, data, false).ok());
  ASSERT_TRUE(disk->Flush().ok());
  const uint64_t before = image_.AllocatedBytes();
  ASSERT_TRUE(disk->WriteZeroes(100, kMiB, false).ok());
  EXPECT_EQ(ReadAll(*disk, 100, kMiB), Data(kMiB, 0));
  EXPECT_EQ(ReadAll(*disk, 0, 100), Data(data.begin(), data.begin() + 100));
  ASSERT_TRUE(disk->Flush().ok());
  EXPECT_GE(image_.AllocatedBytes() + 64 * 1024, before) << "zeroes gave space back unasked";
  ASSERT_TRUE(disk->WriteZeroes(2 * kMiB, kMiB, true).ok());
  EXPECT_EQ(ReadAll(*disk, 2 * kMiB, kMiB), Data(kMiB, 0));
  EXPECT_LE(image_.AllocatedBytes() + kMiB, before + 64 * 1024);
  ASSERT_TRUE(disk->Discard(3 * kMiB, kMiB).ok());
  EXPECT_LE(image_.AllocatedBytes() + 2 * kMiB, before + 64 * 1024);
}

TEST_F(BlockTest, ReadOnlyIsReadOnly) {
  for (const std::string option : {"", ",ro"}) {
    device_ = Make("blk:" + image_.path() + option);
    const auto disk = Open(option.empty());
    EXPECT_TRUE(disk->geometry().read_only);
    EXPECT_FALSE(disk->geometry().can_discard);
    EXPECT_TRUE(absl::IsPermissionDenied(disk->Write(0, Data(512), false)));
    EXPECT_TRUE(absl::IsPermissionDenied(disk->Discard(0, 512)));
    EXPECT_TRUE(absl::IsPermissionDenied(disk->WriteZeroes(0, 512, true)));
    EXPECT_EQ(ReadAll(*disk, 0, 512), Data(512, 0));
    EXPECT_TRUE(disk->Flush().ok());
  }
}

TEST_F(BlockTest, AnImageCutOffMeanwhileIsDataLossNotNoise) {
  const auto disk = Open();
  ASSERT_EQ(truncate(image_.path().c_str(), kMiB), 0);
  Data data(8192);
  EXPECT_TRUE(disk->Read(kMiB - 8192, data).ok());
  EXPECT_TRUE(absl::IsDataLoss(disk->Read(kMiB - 4096, data)));
  EXPECT_TRUE(absl::IsDataLoss(disk->Read(2 * kMiB, data)));
}

TEST_F(BlockTest, NoSpaceIsResourceExhausted) {
  const auto disk = Open();
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{}, tight{};
  getrlimit(RLIMIT_FSIZE, &limit);
  tight = limit;
  tight.rlim_cur = 2 * kMiB;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  const absl::Status within = disk->Write(kMiB, Data(kMiB, 1), false);
  const absl::Status beyond = disk->Write(3 * kMiB, Data(4096, 1), false);
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, before);
  EXPECT_TRUE(within.ok()) << within;
  EXPECT_TRUE(absl::IsResourceExhausted(beyond)) << beyond;
}

TEST_F(BlockTest, TwoServersCannotWriteToOneImage) {
  const auto other = Make("blk:" + image_.path());
  auto disk = Open();
  EXPECT_TRUE(absl::IsFailedPrecondition(other->OpenDisk(false).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(other->OpenDisk(true).status()));
  // Within one server it is the service that decides.
  EXPECT_TRUE(device_->OpenDisk(false).ok());
  disk.reset();
  EXPECT_TRUE(other->OpenDisk(false).ok()) << "the lock was not let go";

  const auto reader = Open(true);
  EXPECT_TRUE(other->OpenDisk(true).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(other->OpenDisk(false).status()));
  // A reader of ours is in nobody's way here, and is locked again if it fails.
  const auto foreign_reader = other->OpenDisk(true);
  EXPECT_TRUE(absl::IsFailedPrecondition(device_->OpenDisk(false).status()));
  const auto third = Make("blk:" + image_.path());
  EXPECT_TRUE(absl::IsFailedPrecondition(third->OpenDisk(false).status()));
}

TEST_F(BlockTest, AReaderAndThenAWriterOfOneServer) {
  const auto other = Make("blk:" + image_.path());
  const auto reader = Open(true);
  auto writer = Open(false);
  EXPECT_TRUE(writer->Write(0, Data(512, 9), false).ok());
  EXPECT_EQ(ReadAll(*reader, 0, 512), Data(512, 9));
  EXPECT_TRUE(absl::IsFailedPrecondition(other->OpenDisk(true).status()));
}

TEST_F(BlockTest, BadSpecsAreRefusedAndAbsentOnesWait) {
  EXPECT_TRUE(absl::IsInvalidArgument(MakeDevice("blk:", clock_).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(MakeDevice("blk:,ro", clock_).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(MakeDevice("blk:/dev/null", clock_).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(MakeDevice("blk:/tmp", clock_).status()));
  const std::string path = image_.path() + ".later";
  const auto device = Make("blk:" + path);
  EXPECT_FALSE(device->Describe().present);
  EXPECT_NE(device->Describe().why_absent.find(path), std::string::npos);
  EXPECT_TRUE(absl::IsUnavailable(device->OpenDisk(false).status()));
  { const UniqueFd made(open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)); }
  EXPECT_TRUE(absl::IsFailedPrecondition(device->OpenDisk(false).status())) << "it is empty";
  ASSERT_EQ(truncate(path.c_str(), 4096), 0);
  EXPECT_TRUE(device->OpenDisk(false).ok());
  unlink(path.c_str());
}

TEST_F(BlockTest, ACopyInItsPlaceIsAnotherDisk) {
  const uint64_t name = Open()->geometry().medium;
  EXPECT_EQ(Open()->geometry().medium, name);
  const std::string kept = image_.path() + ".old";
  ASSERT_EQ(rename(image_.path().c_str(), kept.c_str()), 0);
  { const UniqueFd made(open(image_.path().c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)); }
  ASSERT_EQ(truncate(image_.path().c_str(), 4 * kMiB), 0);
  EXPECT_NE(Open()->geometry().medium, name);
  unlink(kept.c_str());
}

}  // namespace
}  // namespace tripwire::periph

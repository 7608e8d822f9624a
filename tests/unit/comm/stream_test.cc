// SPDX-License-Identifier: BSD-3-Clause
#include "nic/comm/stream.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "nic/base/random.h"
#include "tests/unit/comm/connected_pair.h"

namespace tripwire::comm {
namespace {

class StreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    right_ = Stream::Offer(*pair_.right, pair_.right_link, 8192);
    left_ = Stream::Join(*pair_.left, pair_.left_link, right_->name(), 4096);
  }
  static uint8_t ByteAt(size_t i) {
    return static_cast<uint8_t>(i * 31 + (i >> 8));
  }
  static void WriteAll(Stream& stream, size_t bytes, uint64_t seed) {
    Random random(seed);
    std::vector<uint8_t> data;
    for (size_t at = 0; at < bytes;) {
      data.resize(std::min<size_t>(bytes - at, 1 + random.Below(30'000)));
      for (size_t i = 0; i < data.size(); ++i) data[i] = ByteAt(at + i);
      const auto written = stream.Write(data, kNever);
      ASSERT_TRUE(written.ok());
      ASSERT_EQ(*written, data.size());
      at += data.size();
    }
    ASSERT_TRUE(stream.Shutdown(kNever).ok());
  }
  static void ReadAll(Stream& stream, size_t bytes, uint64_t seed) {
    Random random(seed);
    std::vector<uint8_t> data;
    size_t at = 0;
    for (;;) {
      data.resize(1 + random.Below(10'000));
      const auto got = stream.Read(data, kNever);
      ASSERT_TRUE(got.ok()) << got.status();
      if (*got == 0) break;
      for (size_t i = 0; i < *got; ++i) ASSERT_EQ(data[i], ByteAt(at + i));
      at += *got;
    }
    EXPECT_EQ(at, bytes);
  }

  ConnectedPair pair_;
  std::unique_ptr<Stream> left_, right_;
};

TEST_F(StreamTest, BytesGoBothWaysAtOnce) {
  constexpr size_t kBytes = 1'000'000;
  std::thread threads[] = {
      std::thread([&] { WriteAll(*left_, kBytes, 1); }),
      std::thread([&] { WriteAll(*right_, kBytes / 2, 2); }),
      std::thread([&] { ReadAll(*left_, kBytes / 2, 3); }),
  };
  ReadAll(*right_, kBytes, 4);
  for (auto& thread : threads) thread.join();
}

TEST_F(StreamTest, HalfCloseLeavesTheOtherHalfOpen) {
  uint8_t byte = 1;
  ASSERT_TRUE(left_->Shutdown(kNever).ok());
  EXPECT_EQ(*right_->Read({&byte, 1}, kNever), 0u);
  EXPECT_EQ(*right_->Read({&byte, 1}, kNever), 0u);
  byte = 9;
  EXPECT_EQ(*right_->Write({&byte, 1}, kNever), 1u);
  byte = 0;
  EXPECT_EQ(*left_->Read({&byte, 1}, kNever), 1u);
  EXPECT_EQ(byte, 9);
  EXPECT_TRUE(absl::IsFailedPrecondition(
      left_->Write({&byte, 1}, kNever).status()));
}

TEST_F(StreamTest, DeadlinesPass) {
  std::vector<uint8_t> data(20'000);
  EXPECT_TRUE(absl::IsDeadlineExceeded(left_->Read(data, 0).status()));
  // As much as fits, then the deadline.
  const auto written = left_->Write(data, 0);
  ASSERT_TRUE(written.ok());
  EXPECT_EQ(*written, 8192u);
  EXPECT_TRUE(absl::IsDeadlineExceeded(left_->Write(data, 0).status()));
  size_t read = 0;
  while (read < 8192) {
    const auto got = right_->Read(data, kNever);
    ASSERT_TRUE(got.ok());
    read += *got;
  }
  EXPECT_EQ(read, 8192u);
}

TEST_F(StreamTest, AReaderThatIsGoneIsHeard) {
  uint8_t byte = 1;
  ASSERT_EQ(*left_->Write({&byte, 1}, kNever), 1u);
  ASSERT_EQ(*right_->Read({&byte, 1}, kNever), 1u);
  right_.reset();
  EXPECT_EQ(*left_->Read({&byte, 1}, kNever), 0u);
  std::vector<uint8_t> data(1000);
  absl::StatusOr<size_t> written = size_t{0};
  while (written.ok()) written = left_->Write(data, kNever);
  EXPECT_TRUE(absl::IsFailedPrecondition(written.status())) << written.status();
}

TEST_F(StreamTest, ALostLinkEndsEverything) {
  pair_.wire.SetCut(true);
  uint8_t byte;
  EXPECT_TRUE(absl::IsUnavailable(right_->Read({&byte, 1}, kNever).status()));
  EXPECT_TRUE(absl::IsUnavailable(left_->Read({&byte, 1}, kNever).status()));
}

}  // namespace
}  // namespace tripwire::comm

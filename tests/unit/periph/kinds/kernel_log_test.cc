// SPDX-License-Identifier: BSD-3-Clause
// Records of the kernel's log, and how those that were overwritten are counted.
#include "periph/device/kernel_log.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace tripwire::periph {
namespace {

TEST(KernelRecordTest, ItsSequenceIsTheSecondNumber) {
  EXPECT_EQ(KernelRecordSequence("6,12421,33222179598,-;br0: up\n"), 12421u);
  EXPECT_EQ(KernelRecordSequence("30,18446744073709551615,1,c,caller=T1;x\n"),
            UINT64_MAX);
  EXPECT_EQ(KernelRecordSequence("4,7,9,-;a,5,b;c\n SUBSYSTEM=pci\n"), 7u);
}

TEST(KernelRecordTest, WhatIsNoRecordHasNone) {
  for (const char* text :
       {"", ";", "6", "6,7;text", "6;7,8,9", "text without numbers", "6,,1,-;x",
        "6,-7,1,-;x", "6,7x,1,-;x", "6,18446744073709551616,1,-;x"}) {
    EXPECT_FALSE(KernelRecordSequence(text)) << text;
  }
}

// A log that gives what a test lists: records, or errors by number.
class FakeLog {
 public:
  struct Answer {
    std::string record;
    int error = 0;
  };
  explicit FakeLog(std::deque<Answer> answers) : answers_(std::move(answers)) {}

  // Reads everything; the overrun after each record.
  std::vector<uint64_t> ReadAll() {
    KernelLogInput input(
        -1, [this](std::span<uint8_t> into) { return Read(into); }, "kmsg");
    std::vector<uint64_t> overruns;
    for (;;) {
      uint8_t buffer[256];
      const ByteInput::Piece piece = input.Read(buffer);
      if (piece.what == ByteInput::What::kBytes) {
        overruns.push_back(input.overrun());
      }
      if (piece.what == ByteInput::What::kEnd) {
        end_ = piece.why;
        return overruns;
      }
    }
  }
  const absl::Status& end() const { return end_; }

 private:
  ssize_t Read(std::span<uint8_t> into) {
    if (answers_.empty()) return 0;
    const Answer answer = answers_.front();
    answers_.pop_front();
    if (answer.error != 0) {
      errno = answer.error;
      return -1;
    }
    std::memcpy(into.data(), answer.record.data(), answer.record.size());
    return static_cast<ssize_t>(answer.record.size());
  }
  std::deque<Answer> answers_;
  absl::Status end_;
};

TEST(KernelLogTest, OverwrittenRecordsAreCountedByTheirNumbers) {
  FakeLog log({{"6,100,1,-;first\n"},
               {"6,101,1,-;second\n"},
               {"", EPIPE},
               {"6,140,1,-;after 38 were lost\n"},
               {"6,141,1,-;next\n"},
               {"", EPIPE},
               {"6,143,1,-;one more\n"}});
  EXPECT_EQ(log.ReadAll(), (std::vector<uint64_t>{0, 0, 38, 38, 39}));
  EXPECT_TRUE(log.end().ok()) << log.end();
}

TEST(KernelLogTest, NothingIsMissingBeforeTheFirstRecordOrWhenItBeginsAnew) {
  FakeLog log({{"", EPIPE},
               {"6,5000,1,-;the oldest there is\n"},
               {"", EAGAIN},
               {"6,1,1,-;another kernel\n"},
               {"6,2,1,-;its next\n"}});
  EXPECT_EQ(log.ReadAll(), (std::vector<uint64_t>{0, 0, 0}));
}

TEST(KernelLogTest, OtherErrorsEndIt) {
  FakeLog log({{"6,1,1,-;text\n"}, {"", ENODEV}, {"6,2,1,-;never read\n"}});
  EXPECT_EQ(log.ReadAll().size(), 1u);
  EXPECT_EQ(log.end().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tripwire::periph

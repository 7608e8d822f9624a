// SPDX-License-Identifier: BSD-3-Clause
// Another machine's disks: the service and its users, over a wire.
#include "tests/unit/periph/disk/disk_fixture.h"

#include <atomic>
#include <cstring>
#include <latch>
#include <random>
#include <thread>

#include "tests/unit/periph/disk/image.h"

namespace tripwire::periph {
namespace {

constexpr uint64_t kMiB = 1 << 20;
using Data = std::vector<uint8_t>;
using DiskIo = proto::DiskIo;

Data ReadBack(Disk& disk, uint64_t offset, size_t length) {
  Data data(length);
  const absl::Status status = disk.Read(offset, data);
  EXPECT_TRUE(status.ok()) << status;
  return data;
}

TEST_F(DiskTest, ReadsWhatWasWrittenHoweverLong) {
  Image image(32 * kMiB);
  OfferSpec("disk", "blk:" + image.path());
  StartServer();
  const auto disk = Open("disk");
  EXPECT_EQ(disk->geometry().size_bytes, 32 * kMiB);
  for (const size_t length : {size_t{1}, size_t{4096}, size_t{kMiB}, size_t{11 * kMiB + 17}}) {
    const Data data = RandomData(length, length);
    ASSERT_TRUE(disk->Write(length, data, false).ok());
    EXPECT_EQ(ReadBack(*disk, length, length), data);
  }
  EXPECT_TRUE(disk->Read(5, {}).ok());
  EXPECT_TRUE(disk->Write(5, {}, false).ok());
  ASSERT_TRUE(disk->WriteZeroes(kMiB, 3 * kMiB, true).ok());
  EXPECT_EQ(ReadBack(*disk, kMiB, 3 * kMiB), Data(3 * kMiB, 0));
  EXPECT_TRUE(disk->Flush().ok());
}

TEST_F(DiskTest, WhatIsNotOnTheDiskIsRefusedByTheServerToo) {
  Image image(kMiB);
  OfferSpec("disk", "blk:" + image.path());
  StartServer();
  const auto channel = Connect();
  rpc::Response response;
  proto::Request open;
  open.mutable_disk_open()->set_device("disk");
  EXPECT_TRUE(absl::IsInvalidArgument(Call(*channel, open, &response))) << "number 0";
  open.mutable_disk_open()->set_disk(7);
  ASSERT_TRUE(Call(*channel, open, &response).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(Call(*channel, open, &response)));

  proto::Request request;
  DiskIo& io = *request.mutable_disk_io();
  io.set_disk(7);
  const Data data(4096, 1);
  const auto ask = [&](DiskIo::Operation operation, uint64_t offset, uint64_t length) {
    io.set_operation(operation);
    io.set_offset(offset);
    io.set_length(length);
    return Call(*channel, request, &response,
                operation == DiskIo::WRITE ? std::span(data) : std::span<const uint8_t>(),
                operation == DiskIo::READ ? 4096 : 0);
  };
  EXPECT_TRUE(ask(DiskIo::READ, 0, 4096).ok());
  EXPECT_TRUE(ask(DiskIo::WRITE, 0, 4096).ok());
  for (const uint64_t offset : {kMiB - 4095, kMiB, UINT64_MAX, UINT64_MAX - 4095}) {
    for (const auto operation :
         {DiskIo::READ, DiskIo::WRITE, DiskIo::DISCARD, DiskIo::WRITE_ZEROES}) {
      EXPECT_TRUE(absl::IsOutOfRange(ask(operation, offset, 4096))) << offset << " " << operation;
    }
  }
  for (const uint64_t length : {uint64_t{4097}, 2 * kMiB, UINT64_MAX}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ask(DiskIo::READ, 0, length))) << "more than there is room";
    EXPECT_TRUE(absl::IsInvalidArgument(ask(DiskIo::WRITE, 0, length))) << "more than was sent";
  }
  EXPECT_TRUE(absl::IsInvalidArgument(ask(DiskIo::WRITE, 0, 4095)));
  EXPECT_TRUE(absl::IsOutOfRange(ask(DiskIo::WRITE_ZEROES, 0, UINT64_MAX)));
  EXPECT_TRUE(absl::IsInvalidArgument(ask(DiskIo::NONE, 0, 0)));
  EXPECT_TRUE(absl::IsInvalidArgument(ask(static_cast<DiskIo::Operation>(99), 0, 0)));

  // Numbers are the session's own.
  io.set_disk(8);
  EXPECT_TRUE(absl::IsNotFound(ask(DiskIo::READ, 0, 1)));
  io.set_disk(7);
  const auto other = Connect();
  io.set_operation(DiskIo::READ);
  io.set_length(1);
  EXPECT_TRUE(absl::IsNotFound(Call(*other, request, &response, {}, 4096)));
  proto::Request close;
  close.mutable_disk_close()->set_disk(7);
  EXPECT_TRUE(absl::IsNotFound(Call(*other, close, &response)));
  EXPECT_TRUE(ask(DiskIo::READ, 0, 1).ok()) << "the other's close closed it";
  EXPECT_TRUE(Call(*channel, close, &response).ok());
  EXPECT_TRUE(absl::IsNotFound(ask(DiskIo::READ, 0, 1)));
  open.mutable_disk_open()->set_device("no such");
  EXPECT_TRUE(absl::IsNotFound(Call(*channel, open, &response)));
}

TEST_F(DiskTest, OneWriterOrManyReadersUnlessAllShare) {
  FakeMedium& medium = NewMedium(kMiB);
  OfferFake("disk", &medium);
  StartServer();
  struct Way {
    bool read_only, exclusive;
  };
  for (const Way first : {Way{false, true}, {false, false}, {true, true}, {true, false}}) {
    for (const Way second : {Way{false, true}, {false, false}, {true, true}, {true, false}}) {
      const bool may = (first.read_only && second.read_only) ||
                       (!first.exclusive && !second.exclusive);
      const auto a = TryOpen(Connect(), {"disk", first.read_only, first.exclusive});
      ASSERT_TRUE(a.ok()) << a.status();
      EXPECT_EQ((*a)->Write(0, Data(10), false).ok(), !first.read_only);
      const auto b = TryOpen(Connect(), {"disk", second.read_only, second.exclusive});
      EXPECT_EQ(b.ok(), may) << first.read_only << first.exclusive << second.read_only
                             << second.exclusive;
      if (!may) {
        EXPECT_TRUE(absl::IsFailedPrecondition(b.status())) << b.status();
      }
    }
  }
}

TEST_F(DiskTest, AClosedDiskIsFreeForOthersAtOnce) {
  FakeMedium& medium = NewMedium(kMiB);
  OfferFake("disk", &medium);
  StartServer();
  for (int i = 0; i < 20; ++i) {
    const auto disk = TryOpen(Connect(), {.device = "disk"});
    ASSERT_TRUE(disk.ok()) << disk.status();
  }
  StopServer();
  EXPECT_EQ(medium.open, 0);
}

TEST_F(DiskTest, AFlushThatWaitsKeepsNobodyWaiting) {
  FakeMedium& medium = NewMedium(kMiB);
  std::latch flushing(8), go_on(1);
  medium.before_flush = [&] {
    flushing.count_down();
    go_on.wait();
  };
  const auto disk = Serve(medium);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { EXPECT_TRUE(disk->Flush().ok()); });
  }
  flushing.wait();  // more of them than workers
  EXPECT_TRUE(disk->Write(0, Data(4096, 3), false).ok());
  EXPECT_EQ(ReadBack(*disk, 0, 4096), Data(4096, 3));
  go_on.count_down();
  for (std::thread& thread : threads) thread.join();
}

TEST_F(DiskTest, ErrorsOfTheMediumReachTheUser) {
  FakeMedium& medium = NewMedium(kMiB);
  const auto disk = Serve(medium);
  medium.write_status = absl::ResourceExhaustedError("no space");
  EXPECT_TRUE(absl::IsResourceExhausted(disk->Write(0, Data(512), false)));
  medium.write_status = absl::DataLossError("bad block");
  EXPECT_TRUE(absl::IsDataLoss(disk->Write(0, Data(512), false)));
  EXPECT_TRUE(absl::IsDataLoss(disk->Write(0, Data(3 * kMiB / 4), false)));
  medium.write_status = absl::OkStatus();
  medium.flush_status = absl::DataLossError("lost");
  EXPECT_TRUE(absl::IsDataLoss(disk->Flush()));
  medium.flush_status = absl::OkStatus();
  EXPECT_TRUE(disk->Write(0, Data(512), true).ok());
  EXPECT_EQ(medium.durable_writes, 1);
}

// ------------------------------------------------------- restarts

TEST_F(DiskTest, ARestartedServerIsAskedForTheDiskAgain) {
  FakeMedium& medium = NewMedium(kMiB);
  const auto disk = Serve(medium);
  ASSERT_TRUE(disk->Write(100, Data(100, 5), false).ok());
  for (int i = 0; i < 3; ++i) {
    RestartServer();
    EXPECT_EQ(ReadBack(*disk, 100, 100), Data(100, 5));
    // What it acknowledged is in its machine's memory: nothing is lost.
    EXPECT_TRUE(disk->Flush().ok());
  }
}

TEST_F(DiskTest, ADeviceThatIsAbsentAfterARestartIsWaitedFor) {
  FakeMedium& medium = NewMedium(kMiB);
  const auto disk = Serve(medium);
  ASSERT_TRUE(disk->Write(0, Data(10, 1), false).ok());
  StopServer();
  medium.open_status = absl::UnavailableError("unplugged");
  StartServer();
  std::atomic<bool> done{false};
  std::thread reader([&] {
    EXPECT_EQ(ReadBack(*disk, 0, 10), Data(10, 1));
    done.store(true);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_FALSE(done.load());
  {
    std::lock_guard lock(medium.mutex);
    medium.open_status = absl::OkStatus();
  }
  reader.join();
}

TEST_F(DiskTest, AMachineThatRestartedIsToldAtTheNextFlush) {
  FakeMedium& medium = NewMedium(kMiB);
  options_.verifier = 1;
  const auto disk = Serve(medium);
  const auto reboot = [&] {
    ++options_.verifier;
    RestartServer();
    ReadBack(*disk, 0, 1);  // it is open again
  };
  // Nothing unflushed: nothing lost.
  ASSERT_TRUE(disk->Write(0, Data(10, 1), false).ok());
  ASSERT_TRUE(disk->Flush().ok());
  reboot();
  EXPECT_TRUE(disk->Flush().ok());
  // Durable writes need no flush.
  ASSERT_TRUE(disk->Write(0, Data(10, 1), true).ok());
  reboot();
  EXPECT_TRUE(disk->Flush().ok());
  // A write, or zeroes, and no flush: told once, and not forgotten by a further reboot.
  ASSERT_TRUE(disk->Write(0, Data(10, 1), false).ok());
  reboot();
  reboot();
  EXPECT_TRUE(absl::IsDataLoss(disk->Flush()));
  EXPECT_TRUE(disk->Flush().ok());
  ASSERT_TRUE(disk->WriteZeroes(0, 10, true).ok());
  reboot();
  EXPECT_TRUE(absl::IsDataLoss(disk->Flush()));
}

TEST_F(DiskTest, AFlushUnderWayWhenTheMachineRestartsFails) {
  FakeMedium& medium = NewMedium(kMiB);
  options_.verifier = 1;
  const auto disk = Serve(medium);
  ASSERT_TRUE(disk->Write(0, Data(10, 1), false).ok());
  wire_.SetCut(true);
  std::thread flusher([&] { EXPECT_TRUE(absl::IsDataLoss(disk->Flush())); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  options_.verifier = 2;
  RestartServer();
  wire_.SetCut(false);
  flusher.join();
  EXPECT_EQ(medium.flushes > 0, true) << "the flush was not done at all";
}

TEST_F(DiskTest, AnotherDiskInItsPlaceIsNotUsed) {
  FakeMedium& medium = NewMedium(kMiB);
  medium.geometry.medium = 11;
  const auto other_size = Serve(medium);
  StopServer();
  medium.content.resize(2 * kMiB);
  StartServer();
  EXPECT_TRUE(absl::IsFailedPrecondition(other_size->Write(0, Data(10, 1), false)));
  EXPECT_TRUE(absl::IsFailedPrecondition(other_size->Flush())) << "for good";
  EXPECT_EQ(medium.content, Data(2 * kMiB, 0)) << "what was meant for the other was done here";

  const auto other_name = Open("disk");
  ASSERT_NE(other_name, nullptr);
  StopServer();
  medium.geometry.medium = 12;
  StartServer();
  EXPECT_TRUE(absl::IsFailedPrecondition(other_name->Write(0, Data(10, 1), false)));
  EXPECT_EQ(medium.content, Data(2 * kMiB, 0));

  const auto read_only_now = Open("disk");
  ASSERT_NE(read_only_now, nullptr);
  StopServer();
  medium.geometry.read_only = true;
  StartServer();
  Data data(10);
  EXPECT_TRUE(absl::IsFailedPrecondition(read_only_now->Read(0, data)));
}

// Who was away so long that his session ended may go on only if nobody wrote meanwhile.
TEST_F(DiskTest, WhoWasAwayMustNotMissAnothersWrites) {
  FakeMedium& medium = NewMedium(kMiB);
  OfferFake("disk", &medium);
  session_timeout_ns_ = 300 * kMillisecond;
  StartServer();
  for (const bool other_writes : {false, true}) {
    const auto disk = Open("disk");
    ASSERT_TRUE(disk->Write(0, Data(10, 1), false).ok());
    wire_.SetCut(true);
    const auto all_gone = [&] {
      std::lock_guard lock(medium.mutex);
      return medium.open == 0;
    };
    while (!all_gone()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (other_writes) {
      // As the service sees it: somebody opens it for writing, and closes it.
      auto request = std::make_shared<proto::Request>();
      request->mutable_disk_open()->set_device("disk");
      request->mutable_disk_open()->set_disk(1);
      service_->Serve(ServedCall(rpc::Call(std::make_shared<LocalCall>()), request, {}));
      service_->EndSession(LocalCall::kSession);
    }
    wire_.SetCut(false);
    const absl::Status status = disk->Write(0, Data(10, 2), false);
    EXPECT_EQ(status.ok(), !other_writes) << status;
  }
}

// A write that was on its way when the server died, and the server's next life.
TEST_F(DiskTest, ConcurrentIoIsRightThroughRestartsAndCuts) {
  constexpr int kThreads = 6;
  constexpr uint64_t kShare = 4 * kMiB;
  Image image(kThreads * kShare);
  OfferSpec("disk", "blk:" + image.path());
  StartServer();
  const auto disk = Open("disk");
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, operations{0};
  Data reference(kThreads * kShare);
  const auto work = [&](int index) {
    std::mt19937_64 random(static_cast<uint64_t>(index));
    uint8_t* const mine = reference.data() + index * kShare;
    while (!stop.load()) {
      const uint64_t length = 1 + random() % (random() % 8 == 0 ? 2 * kMiB : 20'000);
      const uint64_t at = random() % (kShare - length);
      const uint64_t offset = index * kShare + at;
      absl::Status status;
      switch (random() % 8) {
        case 0:
          status = disk->Flush();
          break;
        case 1:
          status = disk->WriteZeroes(offset, length, random() % 2 == 0);
          std::memset(mine + at, 0, length);
          break;
        case 2:
        case 3:
        case 4: {
          Data data(length);
          status = disk->Read(offset, data);
          if (std::memcmp(data.data(), mine + at, length) != 0) ++wrong;
          break;
        }
        default: {
          const Data data = RandomData(random(), length);
          status = disk->Write(offset, data, random() % 8 == 0);
          std::memcpy(mine + at, data.data(), length);
        }
      }
      if (!status.ok()) {
        ADD_FAILURE() << status;
        return;
      }
      ++operations;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  std::mt19937_64 random(99);
  for (int round = 0; round < 8; ++round) {
    const int before = operations.load();
    while (operations.load() < before + 60 && !testing::Test::HasFailure()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (round % 4 == 3) {
      wire_.SetCut(true);
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 20));
      RestartServer();
      wire_.SetCut(false);
    } else {
      RestartServer();
    }
  }
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_TRUE(ReadBack(*disk, 0, reference.size()) == reference);
}

}  // namespace
}  // namespace tripwire::periph

// SPDX-License-Identifier: BSD-3-Clause
// tty: lines, with a pty's master end as what is at their far end.
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "periph/device/line_settings.h"
#include "tests/unit/periph/kinds/byte_devices.h"

namespace tripwire::periph {
namespace {

using ::testing::HasSubstr;

class SerialTest : public ByteDeviceTest {
 protected:
  static LineMode ModeOf(const Pty& pty) {
    auto mode = GetLineMode(pty.master.get());
    EXPECT_TRUE(mode.ok()) << mode.status();
    return *mode;
  }
};

TEST_F(SerialTest, BytesGoBothWaysUnchangedOverOneDescriptor) {
  Pty pty;
  auto device = Make("tty:" + pty.path);
  ByteTaker taker;
  auto source = Start(*device, taker);
  auto sink = StartSink(*device);
  const std::string to = ManyBytes(200'000), from = ManyBytes(150'000);
  std::string arrived;
  std::thread far_end([&] {
    WriteBytes(pty.master.get(), from);
    arrived = ReadBytes(pty.master.get(), to.size());
  });
  EXPECT_EQ(taker.WaitFor(from.size()), from);
  PutAll(*sink, to, 40'000);
  EXPECT_TRUE(sink->Drain().ok());
  far_end.join();
  EXPECT_EQ(arrived, to);
}

TEST_F(SerialTest, SettingsReachTheLineWhileItIsOpenAndAreTakenBack) {
  Pty pty;
  const LineMode before = ModeOf(pty);
  auto device = Make("tty:" + pty.path + ",speed=19200,stop=2,parity=mark");
  EXPECT_EQ(ModeOf(pty), before) << "nobody has opened it";
  auto sink = StartSink(*device);
  LineSettings seen = SettingsOf(ModeOf(pty));
  EXPECT_EQ(seen.speed, 19200u);
  EXPECT_EQ(seen.stop, 2);
  // A pty keeps these two of the three flags of mark parity.
  EXPECT_EQ(ModeOf(pty).control_flags & (PARODD | 010000000000),
            PARODD | 010000000000u);
  EXPECT_TRUE(IsRaw(ModeOf(pty)));

  EXPECT_TRUE(device->SetControl("speed", "31250").ok());
  EXPECT_TRUE(device->SetControl("stop", "1").ok());
  EXPECT_TRUE(device->SetControl("flow", "rtscts").ok());
  seen = SettingsOf(ModeOf(pty));
  EXPECT_EQ(seen.speed, 31250u);
  EXPECT_EQ(seen.stop, 1);
  EXPECT_EQ(seen.flow, LineSettings::Flow::kRtsCts);
  sink.reset();
  EXPECT_EQ(ModeOf(pty), before);

  // What was set stays set for the next user.
  EXPECT_EQ(ValueOf(*device, "speed"), "31250");
  sink = StartSink(*device);
  EXPECT_EQ(SettingsOf(ModeOf(pty)).speed, 31250u);
}

TEST_F(SerialTest, ControlsTellWhatIsSetAndWhatAPtyLacks) {
  Pty pty;
  auto device = Make("tty:" + pty.path + ",speed=1200,bits=7,parity=even");
  EXPECT_EQ(ValueOf(*device, "speed"), "1200");
  EXPECT_EQ(ValueOf(*device, "bits"), "7");
  EXPECT_EQ(ValueOf(*device, "parity"), "even");
  auto sink = StartSink(*device);
  for (const char* wire : {"dtr", "rts", "cts", "dsr", "cd", "ri"}) {
    const auto controls = device->Controls();
    ASSERT_TRUE(controls.ok());
    const auto found =
        std::find_if(controls->begin(), controls->end(),
                     [&](const Control& c) { return c.name == wire; });
    ASSERT_NE(found, controls->end()) << wire;
    EXPECT_EQ(found->value, "");
    EXPECT_FALSE(found->writable);
    EXPECT_THAT(found->help, HasSubstr("a pty has no such wire"));
  }
  EXPECT_EQ(device->SetControl("dtr", "1").code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(device->SetControl("break", "100").code(),
            absl::StatusCode::kUnimplemented);
}

TEST_F(SerialTest, BadControlsAreRefused) {
  Pty pty;
  auto device = Make("tty:" + pty.path);
  const std::pair<const char*, const char*> bad[] = {
      {"speed", "fast"}, {"bits", "9"},  {"dtr", "on"},
      {"cts", "1"},      {"break", "0"}, {"break", "100000"}};
  for (const auto& entry : bad) {
    EXPECT_EQ(device->SetControl(entry.first, entry.second).code(),
              absl::StatusCode::kInvalidArgument)
        << entry.first << "=" << entry.second;
  }
  EXPECT_EQ(device->SetControl("colour", "red").code(),
            absl::StatusCode::kNotFound);
}

TEST_F(SerialTest, AnotherProgramsLockIsRespected) {
  Pty pty;
  auto device = Make("tty:" + pty.path);
  UniqueFd other(::open(pty.path.c_str(), O_RDWR | O_NOCTTY));
  ASSERT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), 0);
  ByteTaker taker;
  absl::Status status = device->StartSource("", taker).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("busy, locked by "));
  ASSERT_EQ(::flock(other.get(), LOCK_UN), 0);
  ASSERT_EQ(::ioctl(other.get(), TIOCEXCL), 0);
  status = device->StartSink("").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("busy"));
  ASSERT_EQ(::ioctl(other.get(), TIOCNXCL), 0);
  EXPECT_TRUE(device->StartSink("").ok());
}

TEST_F(SerialTest, OursIsLockedWhileItIsUsed) {
  Pty pty;
  auto device = Make("tty:" + pty.path);
  UniqueFd other(::open(pty.path.c_str(), O_RDWR | O_NOCTTY));
  {
    auto sink = StartSink(*device);
    EXPECT_NE(::flock(other.get(), LOCK_EX | LOCK_NB), 0);
  }
  EXPECT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), 0);
}

TEST_F(SerialTest, ALineThatHangsUpMayComeBackUnderItsName) {
  const std::string link = Path("line");
  auto first = std::make_unique<Pty>();
  first->slave.reset();
  std::filesystem::create_symlink(first->path, link);
  auto device = Make("tty:" + link);
  ByteTaker taker;
  auto source = Start(*device, taker);
  auto sink = StartSink(*device);
  WriteBytes(first->master.get(), "hello");
  EXPECT_EQ(taker.WaitFor(5), "hello");
  first.reset();
  EXPECT_EQ(taker.WaitEnd().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(taker.WaitEnd().message(), HasSubstr("hung up"));
  EXPECT_EQ(sink->Put(FrameOf("x")).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(device->Describe().present);

  Pty second;
  std::filesystem::remove(link);
  std::filesystem::create_symlink(second.path, link);
  EXPECT_TRUE(device->Describe().present);
  ByteTaker again;
  // The old ones are still there; the new ones do not share their descriptor.
  auto new_source = Start(*device, again);
  auto new_sink = StartSink(*device);
  WriteBytes(second.master.get(), "again");
  EXPECT_EQ(again.WaitFor(5), "again");
  ASSERT_TRUE(new_sink->Put(FrameOf("there")).ok());
  EXPECT_EQ(ReadBytes(second.master.get(), 5), "there");
}

TEST_F(SerialTest, WhatIsNoTerminalIsRefused) {
  EXPECT_EQ(WhyNot("tty:/etc/passwd").code(),
            absl::StatusCode::kInvalidArgument);
  for (const std::string spec :
       {"tty:", "tty:/dev/ttyX,speed=fast", "tty:/dev/ttyX,cts=1",
        "tty:/dev/ttyX,dtr=2", "tty:/dev/ttyX,colour"}) {
    EXPECT_EQ(WhyNot(spec).code(), absl::StatusCode::kInvalidArgument) << spec;
  }
  auto device = Make("tty:/dev/zero");
  const absl::Status status = device->StartSink("").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("not a terminal"));
  EXPECT_TRUE(Make("tty:/dev/ttyNotThere,speed=115200,dtr=0") != nullptr);
}

}  // namespace
}  // namespace tripwire::periph

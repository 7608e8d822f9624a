// SPDX-License-Identifier: BSD-3-Clause
// The local end of an attached serial line, with this test as the terminal
// program.
#include "periph/tools/local_pty.h"

#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "tests/unit/periph/kinds/byte_devices.h"

namespace tripwire::periph::tools {
namespace {

using Parity = LineSettings::Parity;

class LocalPtyTest : public ByteDeviceTest {
 protected:
  std::unique_ptr<LocalPty> MakePty(const std::string& link = "",
                                    const LineSettings& settings = {}) {
    auto pty = LocalPty::Make(link, settings);
    EXPECT_TRUE(pty.ok()) << pty.status();
    return *std::move(pty);
  }
  static UniqueFd OpenAsProgram(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK));
    EXPECT_TRUE(fd) << path;
    return fd;
  }
  static LocalPty::Seen SeenIn(LocalPty& pty) {
    auto seen = pty.Look();
    EXPECT_TRUE(seen.ok()) << seen.status();
    return *seen;
  }
  // Changes a program's terminal as programs do.
  template <typename F>
  static void Change(const UniqueFd& fd, F change) {
    termios mode;
    ASSERT_EQ(::tcgetattr(fd.get(), &mode), 0);
    change(mode);
    ASSERT_EQ(::tcsetattr(fd.get(), TCSANOW, &mode), 0);
  }
  static bool IsReadable(LocalPty& pty) {
    pollfd wait{pty.fd(), POLLIN | POLLPRI, 0};
    return ::poll(&wait, 1, 0) > 0 && (wait.revents & (POLLIN | POLLPRI)) != 0;
  }
};

TEST_F(LocalPtyTest, BytesOfEveryValuePassUnchanged) {
  auto pty = MakePty();
  const UniqueFd program = OpenAsProgram(pty->path());
  std::string all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  WriteBytes(program.get(), all);
  auto read = pty->Read();
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(std::string(read->begin(), read->end()), all);
  auto written =
      pty->Write({reinterpret_cast<const uint8_t*>(all.data()), all.size()});
  ASSERT_TRUE(written.ok());
  EXPECT_EQ(*written, all.size());
  EXPECT_EQ(ReadBytes(program.get(), all.size()), all);
  EXPECT_TRUE(pty->Read()->empty()) << "nothing is echoed";
}

TEST_F(LocalPtyTest, ItKnowsWhetherAProgramHasItOpen) {
  auto pty = MakePty();
  EXPECT_FALSE(pty->IsOpen());
  {
    const UniqueFd program = OpenAsProgram(pty->path());
    EXPECT_TRUE(pty->IsOpen());
    pollfd wait{pty->opens_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&wait, 1, 60'000), 1);
    pty->ClearOpens();
    EXPECT_EQ(::poll(&wait, 1, 0), 0);
    const UniqueFd other = OpenAsProgram(pty->path());
  }
  EXPECT_FALSE(pty->IsOpen());
  EXPECT_TRUE(pty->Read()->empty());
}

TEST_F(LocalPtyTest, WhatWasWrittenBeforeClosingIsStillRead) {
  auto pty = MakePty();
  { WriteBytes(OpenAsProgram(pty->path()).get(), "last words"); }
  EXPECT_FALSE(pty->IsOpen());
  EXPECT_TRUE(IsReadable(*pty));
  auto read = pty->Read();
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(std::string(read->begin(), read->end()), "last words");
  EXPECT_FALSE(IsReadable(*pty));
}

TEST_F(LocalPtyTest, ItBeginsWithTheSettingsGivenAndKeepsThem) {
  LineSettings settings;
  settings.speed = 57600;
  settings.stop = 2;
  auto pty = MakePty("", settings);
  {
    const UniqueFd program = OpenAsProgram(pty->path());
    termios mode;
    ASSERT_EQ(::tcgetattr(program.get(), &mode), 0);
    EXPECT_EQ(::cfgetospeed(&mode), speed_t{B57600});
    EXPECT_NE(mode.c_cflag & CSTOPB, 0u);
    EXPECT_EQ(mode.c_lflag & (ICANON | ECHO | ISIG), 0u);
    Change(program, [](termios& m) { ::cfsetspeed(&m, B1200); });
  }
  EXPECT_EQ(SeenIn(*pty).settings.speed, 1200u);
  const UniqueFd next = OpenAsProgram(pty->path());
  EXPECT_EQ(SeenIn(*pty).settings.speed, 1200u);
}

TEST_F(LocalPtyTest, AChangeOfSettingsMakesItReadable) {
  auto pty = MakePty();
  const UniqueFd program = OpenAsProgram(pty->path());
  ASSERT_TRUE(pty->tells_changes());
  ASSERT_FALSE(IsReadable(*pty));
  Change(program, [](termios& mode) {
    ::cfmakeraw(&mode);
    ::cfsetspeed(&mode, B19200);
    mode.c_cflag |= CSTOPB | CRTSCTS;
  });
  EXPECT_TRUE(IsReadable(*pty));
  EXPECT_TRUE(pty->Read()->empty());
  const LocalPty::Seen seen = SeenIn(*pty);
  EXPECT_EQ(seen.settings.speed, 19200u);
  EXPECT_EQ(seen.settings.stop, 2);
  EXPECT_EQ(seen.settings.flow, LineSettings::Flow::kRtsCts);
  EXPECT_TRUE(pty->tells_changes());
  EXPECT_FALSE(IsReadable(*pty)) << "looking is no change";
}

TEST_F(LocalPtyTest, OfParityItSeesWhatTheKernelKeeps) {
  auto pty = MakePty();
  const UniqueFd program = OpenAsProgram(pty->path());
  EXPECT_EQ(SeenIn(*pty).parity, std::nullopt);
  Change(program, [](termios& m) { m.c_cflag |= PARENB | PARODD; });
  EXPECT_EQ(SeenIn(*pty).parity, Parity::kOdd);
  Change(program, [](termios& m) { m.c_cflag |= PARENB | CMSPAR; });
  EXPECT_EQ(SeenIn(*pty).parity, Parity::kMark);
  Change(program,
         [](termios& m) { m.c_cflag &= ~static_cast<tcflag_t>(PARODD); });
  EXPECT_EQ(SeenIn(*pty).parity, Parity::kSpace);
  Change(program, [](termios& m) {
    m.c_cflag &= ~static_cast<tcflag_t>(CMSPAR | PARENB);
  });
  EXPECT_EQ(SeenIn(*pty).parity, std::nullopt);
}

TEST_F(LocalPtyTest, AProgramThatWantsLinesAndEchoHasThem) {
  auto pty = MakePty();
  const UniqueFd program = OpenAsProgram(pty->path());
  Change(program, [](termios& mode) {
    mode.c_iflag |= ICRNL;
    mode.c_lflag |= ICANON | ECHO;
  });
  SeenIn(*pty);
  EXPECT_FALSE(pty->tells_changes());
  ASSERT_TRUE(pty->Write({reinterpret_cast<const uint8_t*>("ab\x7f"
                                                           "c\r"),
                          5})
                  .ok());
  EXPECT_EQ(ReadBytes(program.get(), 3), "ac\n");
  // Raw again: nobody tells, but it is seen.
  Change(program, [](termios& mode) {
    ::cfmakeraw(&mode);
    ::cfsetspeed(&mode, B300);
  });
  EXPECT_EQ(SeenIn(*pty).settings.speed, 300u);
}

TEST_F(LocalPtyTest, ItsLinkComesAndGoesWithIt) {
  const std::string link = Path("line");
  auto pty = MakePty(link);
  EXPECT_EQ(std::filesystem::read_symlink(link), pty->path());
  EXPECT_EQ(LocalPty::Make(link, {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  pty.reset();
  EXPECT_FALSE(std::filesystem::is_symlink(link));

  std::filesystem::create_symlink(Path("nowhere"), link);
  pty = MakePty(link);
  EXPECT_EQ(std::filesystem::read_symlink(link), pty->path());
  // What another has put in its place is not ours to remove.
  std::filesystem::remove(link);
  std::filesystem::create_symlink("/dev/null", link);
  pty.reset();
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  std::filesystem::remove(link);
  WriteBytes(UniqueFd(::open(link.c_str(), O_CREAT | O_WRONLY, 0600)).get(),
             "a file");
  EXPECT_EQ(LocalPty::Make(link, {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(std::filesystem::file_size(link), 6u);
}

TEST_F(LocalPtyTest, LastWordsAreWaitedFor) {
  auto pty = MakePty();
  const UniqueFd program = OpenAsProgram(pty->path());
  ASSERT_TRUE(pty->Write({reinterpret_cast<const uint8_t*>("words"), 5}).ok());
  std::string read;
  std::thread reader([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    read = ReadBytes(program.get(), 5);
  });
  pty->AwaitRead(60'000);
  pty.reset();
  reader.join();
  EXPECT_EQ(read, "words");
}

TEST_F(LocalPtyTest, ItsEndIsAHangUpForPrograms) {
  auto pty = MakePty();
  const UniqueFd program = OpenAsProgram(pty->path());
  pty.reset();
  pollfd wait{program.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&wait, 1, 60'000), 1);
  EXPECT_NE(wait.revents & POLLHUP, 0);
  EXPECT_LT(::write(program.get(), "x", 1), 0);
}

}  // namespace
}  // namespace tripwire::periph::tools

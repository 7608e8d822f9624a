// SPDX-License-Identifier: BSD-3-Clause
// Devices that carry bytes, end to end: character devices, serial lines,
// programs.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>

#include "tests/system/harness/devices.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

constexpr double kSeconds = 60;

class PeriphBytesTest : public DeviceTest {
 protected:
  // A running attach, once it has a terminal.
  struct Attached {
    Process process;
    size_t terminals() const {
      const std::string out = process.out();
      return static_cast<size_t>(std::count(out.begin(), out.end(), '\n'));
    }
    std::string path() const {
      std::string out = process.out();
      out.pop_back();
      return out.substr(out.rfind('\n') + 1);
    }
  };
  Attached Attach(const Argv& arguments) {
    Argv argv = {"attach", "--log-level", "info"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    Attached attached{server_.Begin(argv)};
    EXPECT_TRUE(Eventually(kSeconds, [&] {
      return attached.terminals() > 0 || !attached.process.Running();
    }));
    EXPECT_TRUE(attached.process.Running()) << attached.process.err();
    return attached;
  }
  static termios ModeOf(const UniqueFd& fd) {
    termios mode = {};
    EXPECT_EQ(::tcgetattr(fd.get(), &mode), 0);
    return mode;
  }
  template <typename F>
  static void Change(const UniqueFd& fd, F change) {
    termios mode = ModeOf(fd);
    change(mode);
    ASSERT_EQ(::tcsetattr(fd.get(), TCSANOW, &mode), 0);
  }
  static bool HasHungUp(const UniqueFd& fd) {
    pollfd wait{fd.get(), POLLIN, 0};
    return ::poll(&wait, 1, 0) > 0 && (wait.revents & POLLHUP) != 0;
  }
};

TEST_P(PeriphBytesTest, ProgramsAreReadAndWritten) {
  server_.Start({"zeros=exec:head -c 1000000 /dev/zero",
                 "copy=exec:cat > " + server_.Path("copy"),
                 "bad=exec:echo some; echo why >&2; exit 3"});
  const Result zeros = server_.Run({"cat", "server:zeros"});
  EXPECT_EQ(zeros.exit_code, 0) << zeros.err;
  EXPECT_EQ(zeros.out, std::string(1'000'000, '\0'));

  const std::string input = RandomBytes(7, 2'000'000);
  WriteFile(server_.Path("input"), input);
  const Result copied =
      server_.RunLine(Quoted(server_.Command({"cat", "--to", "server:copy"})) +
                      "< " + server_.Path("input"));
  EXPECT_EQ(copied.exit_code, 0) << copied.err;
  EXPECT_TRUE(ReadFile(server_.Path("copy")) == input);

  const Result bad = server_.Run({"cat", "server:bad"});
  EXPECT_EQ(bad.out, "some\n");
  ExpectOneLine(bad, "exited with 3");
  EXPECT_THAT(server_.process().err(), HasSubstr(": why\n"));
}

TEST_P(PeriphBytesTest, CharacterDevicesAreRead) {
  server_.Start({"random=chr:/dev/urandom,frame=1000", "log=chr:/dev/kmsg,ro",
                 "generator=chr:/dev/hwrng", "nothing=chr:/dev/null"});
  const Result random =
      server_.Run({"cat", "--quiet", "-n", "50", "server:random"});
  EXPECT_EQ(random.exit_code, 0) << random.err;
  EXPECT_EQ(random.out.size(), 50'000u);
  const Result nothing = server_.Run({"cat", "server:nothing"});
  EXPECT_EQ(nothing.exit_code, 0) << nothing.err;
  EXPECT_EQ(nothing.out, "");
  if (::access("/dev/kmsg", R_OK) == 0) {
    const Result log = server_.Run({"cat", "--quiet", "-n", "1", "server:log"});
    EXPECT_THAT(log.out, MatchesRegex("[0-9]+,[0-9]+,[0-9]+,.*;.*\n"));
  }
  const Result info = server_.Run({"info", "server:generator"});
  if (info.out.find("hardware random generator") != std::string::npos) {
    const Result bytes =
        server_.Run({"cat", "--quiet", "-n", "4", "server:generator"});
    EXPECT_EQ(bytes.exit_code, 0) << bytes.err;
    EXPECT_GE(bytes.out.size(), 4u);
  }
}

TEST_P(PeriphBytesTest, ADeviceThatVanishesComesBackToItsReader) {
  const std::string fifo = server_.Path("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  server_.Start({"fifo=chr:" + fifo});
  Process reader = server_.Begin({"cat", "server:fifo"});
  const auto write = [&](const std::string& text) {
    const UniqueFd fd(::open(fifo.c_str(), O_WRONLY));
    EXPECT_EQ(::write(fd.get(), text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
  };
  write("before ");
  EXPECT_TRUE(Eventually(kSeconds, [&] { return reader.out() == "before "; }));
  std::filesystem::remove(fifo);
  EXPECT_TRUE(Eventually(kSeconds, [&] {
    return server_.process().err().find("removed") != std::string::npos;
  }));
  EXPECT_THAT(server_.Run({"info", "server:fifo"}).out,
              HasSubstr("No such file"));
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  write("after");
  EXPECT_TRUE(Eventually(kSeconds, [&] {
    return reader.out() == "before after";
  })) << reader.out();
  reader.Signal(SIGINT);
  EXPECT_EQ(reader.Wait(kSeconds), 0) << reader.err();
}

TEST_P(PeriphBytesTest, ASerialLineCarriesAMegabyteBothWays) {
  FarLine far;
  server_.Start({"line=tty:" + far.path});
  const std::string link = server_.Path("line");
  Attached attached = Attach({"server:line", link});
  EXPECT_EQ(std::filesystem::read_symlink(link), attached.path());
  const UniqueFd near = OpenTerminal(link);
  const std::string there = RandomBytes(1, 1 << 20);
  const std::string back = RandomBytes(2, 1 << 20);
  const Exchanged arrived =
      Exchange(near.get(), far.master.get(), there, back, kSeconds);
  EXPECT_TRUE(arrived.there == there) << arrived.there.size();
  EXPECT_TRUE(arrived.back == back) << arrived.back.size();
  attached.process.Signal(SIGINT);
  EXPECT_EQ(attached.process.Wait(kSeconds), 0) << attached.process.err();
  EXPECT_FALSE(std::filesystem::is_symlink(link));
  EXPECT_TRUE(HasHungUp(near));
}

TEST_P(PeriphBytesTest, SettingsOfTheTerminalReachTheFarLine) {
  FarLine far;
  server_.Start({"line=tty:" + far.path + ",speed=1200"});
  Attached attached = Attach({"server:line"});
  const UniqueFd near = OpenTerminal(attached.path());
  const termios first = ModeOf(near);
  EXPECT_EQ(::cfgetospeed(&first), speed_t{B1200}) << "the line's own";
  Change(near, [](termios& mode) {
    ::cfsetspeed(&mode, B57600);
    mode.c_cflag |= CSTOPB | PARENB | PARODD;
  });
  const auto far_has = [&](auto has) {
    return Eventually(kSeconds, [&] { return has(ModeOf(far.slave)); });
  };
  // A pty keeps PARODD of parity, and nothing of PARENB, at either end.
  EXPECT_TRUE(far_has([](const termios& mode) {
    return ::cfgetospeed(&mode) == B57600 && (mode.c_cflag & CSTOPB) != 0 &&
           (mode.c_cflag & PARODD) != 0;
  }));
  EXPECT_THAT(server_.Run({"ctl", "server:line"}).out,
              MatchesRegex("(.|\n)*parity +odd(.|\n)*"));
  // It is ours: others may only look.
  ExpectOneLine(server_.Run({"ctl", "server:line", "speed=50"}), "busy");
}

TEST_P(PeriphBytesTest, WhatATerminalCannotTellIsSetByName) {
  FarLine far;
  server_.Start({"line=tty:" + far.path});
  Attached attached =
      Attach({"server:line", "--shared", "--set", "parity=even"});
  const UniqueFd near = OpenTerminal(attached.path());
  EXPECT_EQ(server_.Run({"ctl", "server:line", "bits=7"}).exit_code, 0);
  Change(near, [](termios& mode) { ::cfsetspeed(&mode, B300); });
  EXPECT_TRUE(Eventually(kSeconds, [&] {
    const termios mode = ModeOf(far.slave);
    return ::cfgetospeed(&mode) == B300;
  }));
  // What others set stays as it is.
  const std::string controls = server_.Run({"ctl", "server:line"}).out;
  EXPECT_THAT(controls, MatchesRegex("(.|\n)*parity +even(.|\n)*"));
  EXPECT_THAT(controls, MatchesRegex("(.|\n)*bits +7(.|\n)*"));
  ExpectOneLine(server_.Run({"ctl", "server:line", "speed=fast"}),
                "speed=fast");
  ExpectOneLine(server_.Run({"ctl", "server:line", "break=100"}), "pty");
  ExpectOneLine(server_.Run({"attach", "server:line", "--set", "parity"}),
                "NAME=VALUE");
}

TEST_P(PeriphBytesTest, ALineThatHangsUpIsAHangUpAndComesBack) {
  const std::string name = server_.Path("far");
  auto far = std::make_unique<FarLine>();
  std::filesystem::create_symlink(far->path, name);
  server_.Start({"line=tty:" + name});
  const std::string link = server_.Path("near");
  Attached attached = Attach({"server:line", link});
  UniqueFd near = OpenTerminal(link);
  ASSERT_EQ(
      Exchange(near.get(), far->master.get(), "to", "from", kSeconds).back,
      "from");
  far.reset();
  EXPECT_TRUE(Eventually(kSeconds, [&] { return HasHungUp(near); }));

  far = std::make_unique<FarLine>();
  std::filesystem::remove(name);
  std::filesystem::create_symlink(far->path, name);
  EXPECT_TRUE(Eventually(kSeconds, [&] { return attached.terminals() == 2; }))
      << attached.process.err();
  near = OpenTerminal(link);
  const Exchanged again =
      Exchange(near.get(), far->master.get(), "again", "there", kSeconds);
  EXPECT_EQ(again.there, "again");
  EXPECT_EQ(again.back, "there");
}

TEST_P(PeriphBytesTest, AServerThatRestartsIsNoHangUp) {
  FarLine far;
  const Argv devices = {"line=tty:" + far.path};
  server_.Start(devices);
  Attached attached = Attach({"server:line"});
  const UniqueFd near = OpenTerminal(attached.path());
  ASSERT_EQ(Exchange(near.get(), far.master.get(), "to", "from", kSeconds).back,
            "from");
  server_.Crash();
  server_.Start(devices);
  // What is written before it is known that the link was lost is lost with it,
  // and each direction has a link of its own.
  EXPECT_TRUE(Eventually(kSeconds, [&] {
    return Exchange(near.get(), far.master.get(), "again", "", 1).there ==
           "again";
  })) << attached.process.err();
  EXPECT_EQ(Exchange(near.get(), far.master.get(), "", "there", kSeconds).back,
            "there");
  EXPECT_FALSE(HasHungUp(near));
  EXPECT_EQ(attached.terminals(), 1u);
}

TEST_P(PeriphBytesTest, AProgramIsATerminalToo) {
  server_.Start({"echo=exec:cat", "short=exec:read x; echo got $x"});
  {
    Attached attached = Attach({"server:echo"});
    const UniqueFd near = OpenTerminal(attached.path());
    const std::string bytes = RandomBytes(3, 300'000);
    EXPECT_TRUE(Exchange(near.get(), near.get(), bytes, "", kSeconds).there ==
                bytes);
    attached.process.Signal(SIGTERM);
    EXPECT_EQ(attached.process.Wait(kSeconds), 0) << attached.process.err();
  }
  // One that ends is a hang-up, after its last words.
  Attached attached = Attach({"server:short"});
  const UniqueFd near = OpenTerminal(attached.path());
  ASSERT_EQ(::write(near.get(), "word\n", 5), 5);
  std::string said;
  while (said.size() < 9) {
    char buffer[16];
    const ssize_t size = ::read(near.get(), buffer, sizeof buffer);
    if (size <= 0) break;
    said.append(buffer, static_cast<size_t>(size));
  }
  EXPECT_EQ(said, "got word\n");
  EXPECT_EQ(attached.process.Wait(kSeconds), 0) << attached.process.err();
  EXPECT_TRUE(HasHungUp(near));
}

TEST_P(PeriphBytesTest, MistakesAreToldInOneLine) {
  FarLine far;
  server_.Start({"line=tty:" + far.path, "gone=tty:" + server_.Path("none")});
  ASSERT_EQ(::flock(far.slave.get(), LOCK_EX | LOCK_NB), 0);
  ExpectOneLine(server_.Run({"attach", "server:line"}), "busy");
  ExpectOneLine(server_.Run({"attach", "server:gone"}), "No such file");
  ExpectOneLine(server_.Run({"attach", "server:other"}), "other");
  ASSERT_EQ(::flock(far.slave.get(), LOCK_UN), 0);
  ExpectOneLine(server_.Run({"attach", "server:line", "/etc/passwd"}),
                "/etc/passwd is there already");
  Attached attached = Attach({"server:line"});
  ExpectOneLine(server_.Run({"attach", "server:line"}), "line");
  const Result bad = Execute({Program("tw-periphd"), "--device", "x=tty:/tmp"});
  ExpectOneLine(bad, "not a terminal");
}

INSTANTIATE_TEST_SUITE_P(Over, PeriphBytesTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth,
                                           Wire::kFaultyMemif,
                                           Wire::kFaultyEth),
                         WireName);

}  // namespace
}  // namespace tripwire::systest

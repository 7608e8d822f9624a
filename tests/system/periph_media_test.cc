// SPDX-License-Identifier: BSD-3-Clause
// Pictures, sound and screens of one process in others: tools, files,
// GStreamer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <string_view>

#include "tests/system/harness/devices.h"
#include "tests/system/harness/tree.h"
#include "tests/unit/periph/gst/xvfb.h"

// Last, because of Xlib.
#include "tests/unit/periph/gst/x_program.h"

namespace tripwire::systest {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr double kSoon = 60;
constexpr char kCamera[] =
    "cam=gst:twtestpicture ! video/x-raw,width=320,height=240,framerate=60/1";

class MediaTest : public DeviceTest {
 protected:
  MediaTest() {
    setenv("GST_PLUGIN_PATH", TRIPWIRE_GST_PLUGINS, 1);
    // The plug-ins under test are not those of a user's cache.
    setenv("GST_REGISTRY", server_.Path("registry").c_str(), 1);
  }
  // `tw-periph ARGUMENTS | tw-picture-check`: the check's report, then what
  // tw-periph said on standard error.
  Process CheckedCat(const Argv& arguments, const std::string& said) {
    return Process({"bash", "-c",
                    Quoted(server_.Command(arguments)) + "2>" + said +
                        " | " TRIPWIRE_PICTURE_CHECK},
                   server_.network().ClientNode(0));
  }
  Result Launch(const std::string& line) {
    return server_.RunLine("exec gst-launch-1.0 -q -e " + line);
  }
  std::string Source() {
    return "tripwiresrc device=:cam port='" + server_.network().ClientPort(0) +
           "'";
  }
};

std::map<std::string, uint64_t> ParseReport(const std::string& text) {
  std::map<std::string, uint64_t> report;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const size_t equals = line.find('=');
    if (equals != std::string::npos)
      report[line.substr(0, equals)] = std::stoull(line.substr(equals + 1));
  }
  return report;
}

// All the numbers of the line in which `cat` says what is missing; 0 if it says
// nothing.
uint64_t SaidToBeMissing(const std::string& said) {
  uint64_t missing = 0, all = 0;
  std::istringstream in(said);
  bool first = true;
  for (std::string word; in >> word;) {
    if (word.find_first_not_of("0123456789,") != std::string::npos) continue;
    const uint64_t number = std::strtoull(word.c_str(), nullptr, 10);
    if (first) {
      all = number;
    } else {
      missing += number;
    }
    first = false;
  }
  EXPECT_LE(missing, all);
  return missing;
}

std::string Probe(const std::string& path) {
  return MustRun(
      {"ffprobe", "-v", "error", "-count_frames", "-show_entries",
       "stream=codec_name,width,height,sample_rate,channels,nb_read_frames",
       "-of", "default=noprint_wrappers=1", path});
}

TEST_P(MediaTest, CatGivesFilesThatOthersRead) {
  server_.Start({kCamera,
                 "mic=gst:audiotestsrc is-live=true ! "
                 "audio/x-raw,rate=48000,channels=2"});
  const std::string video = server_.Path("v"), sound = server_.Path("s");
  server_.RunLine(Quoted(server_.Command({"cat", ":cam", "-n", "20"})) + ">" +
                  video);
  const std::string seen = Probe(video);
  EXPECT_THAT(seen, HasSubstr("width=320\nheight=240\n"));
  EXPECT_THAT(seen, HasSubstr("nb_read_frames=20\n"));
  server_.RunLine(Quoted(server_.Command({"cat", ":mic", "-n", "10", "--format",
                                          "audio/x-raw, format=S16LE"})) +
                  ">" + sound);
  const std::string heard = Probe(sound);
  EXPECT_THAT(heard, HasSubstr("codec_name=pcm_s16le"));
  EXPECT_THAT(heard, HasSubstr("sample_rate=48000\nchannels=2\n"));
}

TEST_P(MediaTest, RecordingsAreWholeFiles) {
  server_.Start({kCamera,
                 "mic=gst:audiotestsrc is-live=true ! "
                 "audio/x-raw,rate=48000,channels=1"});
  const std::string mkv = server_.Path("a.mkv"), wav = server_.Path("a.wav"),
                    png = server_.Path("a.png");
  const Result video = server_.Run({"record", ":cam", mkv, "-n", "30"});
  EXPECT_EQ(video.exit_code, 0) << video.err;
  EXPECT_THAT(video.err, HasSubstr("30 frames"));
  EXPECT_THAT(Probe(mkv), HasSubstr("nb_read_frames=30\n"));
  EXPECT_EQ(server_.Run({"record", ":mic", wav, "-d", "1"}).exit_code, 0);
  EXPECT_THAT(Probe(wav), HasSubstr("channels=1"));
  EXPECT_EQ(server_.Run({"record", ":cam", png}).exit_code, 0);
  EXPECT_THAT(ReadFile(png), StartsWith("\x89PNG"));
}

TEST_P(MediaTest, ARecordingEndedByTheUserIsWhole) {
  server_.Start({kCamera});
  const std::string path = server_.Path("a.y4m");
  Process record = server_.Begin({"record", ":cam", path});
  ASSERT_TRUE(Eventually(kSoon, [&] {
    return Exists(path) && ReadFile(path).size() > 1 << 20;
  })) << record.err();
  record.Signal(SIGINT);
  EXPECT_EQ(record.Wait(kSoon), 0) << record.err();
  const auto report = ParseReport(MustRun({TRIPWIRE_PICTURE_CHECK, path}));
  EXPECT_GT(report.at("frames"), 5u);
  EXPECT_EQ(
      report.at("torn") + report.at("unreadable") + report.at("backwards"), 0u);
}

TEST_P(MediaTest, DropsCountedAreDropsSeenAlsoWhenOneUserStops) {
  server_.Start({kCamera});
  const std::string said = server_.Path("said");
  Process fast = CheckedCat({"cat", ":cam", "-n", "240"}, said);
  // Without a shell between: the process that stops is the one that has the
  // ring.
  Process slow = server_.Begin({"record", ":cam", server_.Path("slow.y4m"),
                                "-n", "120", "--queue", "4", "--slots", "4"},
                               1);
  ASSERT_TRUE(Eventually(kSoon, [&] {
    return Exists(server_.Path("slow.y4m")) &&
           ReadFile(server_.Path("slow.y4m")).size() > 1 << 20;
  }));
  slow.Signal(SIGSTOP);
  ASSERT_EQ(fast.Wait(kSoon), 0) << fast.err();
  slow.Signal(SIGCONT);
  ASSERT_EQ(slow.Wait(kSoon), 0) << slow.err();

  const auto seen = ParseReport(fast.out());
  EXPECT_EQ(seen.at("frames"), 240u);
  EXPECT_EQ(seen.at("torn") + seen.at("unreadable") + seen.at("backwards"), 0u)
      << fast.out();
  EXPECT_EQ(seen.at("missing"), SaidToBeMissing(ReadFile(said)))
      << ReadFile(said);

  const std::string report =
      MustRun({TRIPWIRE_PICTURE_CHECK, server_.Path("slow.y4m")});
  const auto kept = ParseReport(report);
  EXPECT_EQ(kept.at("frames"), 120u);
  EXPECT_EQ(kept.at("torn") + kept.at("unreadable") + kept.at("backwards"), 0u)
      << report;
  EXPECT_GT(kept.at("missing"), 20u);
  const std::string counted = slow.err().substr(slow.err().find("missing:"));
  EXPECT_EQ(kept.at("missing"), SaidToBeMissing("1000000 " + counted))
      << slow.err();
}

TEST_P(MediaTest, AnyPipelineUsesARemoteDevice) {
  server_.Start({kCamera});
  const std::string report = server_.Path("report");
  const Result plain = Launch(
      Source() + " ! identity eos-after=61 ! twtestcheck report=" + report);
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  const auto seen = ParseReport(ReadFile(report));
  EXPECT_GE(seen.at("frames"), 60u);
  EXPECT_EQ(seen.at("torn") + seen.at("unreadable") + seen.at("backwards"), 0u);
  // What the pipeline wants is asked of the device.
  const Result small = Launch(Source() +
                              " ! identity eos-after=5 ! "
                              "video/x-raw,format=RGB,width=64,height=48 ! "
                              "filesink location=" +
                              server_.Path("rgb"));
  EXPECT_EQ(small.exit_code, 0) << small.err;
  EXPECT_GE(ReadFile(server_.Path("rgb")).size(), 4u * 64 * 48 * 3);
}

TEST_P(MediaTest, AnyPipelineFeedsARemoteSink) {
  const std::string report = server_.Path("report");
  server_.Start({"screen=gst:twtestcheck report=" + report,
                 "file=gst:filesink location=" + server_.Path("out")});
  const std::string sink =
      "tripwiresink port='" + server_.network().ClientPort(0) + "' device=";
  const Result picture = Launch(
      "twtestpicture count=50 ! "
      "video/x-raw,width=320,height=240,framerate=60/1 ! " +
      sink + ":screen");
  EXPECT_EQ(picture.exit_code, 0) << picture.err;
  std::map<std::string, uint64_t> seen;  // the file is there before what is in it
  ASSERT_TRUE(Eventually(kSoon, [&] {
    if (Exists(report)) seen = ParseReport(ReadFile(report));
    return !seen.empty();
  }));
  EXPECT_EQ(seen.at("frames"), seen.at("last") + 1 - seen.at("missing"));
  EXPECT_GT(seen.at("frames"), 10u);
  EXPECT_EQ(seen.at("torn") + seen.at("unreadable"), 0u);

  const std::string content = RandomBytes(3, 300'000);
  WriteFile(server_.Path("in"), content);
  const Result bytes =
      Launch("filesrc location=" + server_.Path("in") + " ! " + sink + ":file");
  EXPECT_EQ(bytes.exit_code, 0) << bytes.err;
  EXPECT_TRUE(ReadFile(server_.Path("out")) == content);
}

TEST_P(MediaTest, MistakesAreOneClearLine) {
  server_.Start({"mic=gst:audiotestsrc is-live=true", kCamera});
  ExpectOneLine(server_.Run({"view", ":cam", "--terminal"}), "no terminal");
  ExpectOneLine(server_.Run({"cat", ":mic", "--format", "video/x-raw"}),
                "video/x-raw");
  ExpectOneLine(server_.Run({"cat", ":mic", "--format", "!!"}), "!!");
  ExpectOneLine(server_.Run({"record", ":mic", server_.Path("a.png")}),
                "a.png");
  const Result none = Execute({Program("tw-periphd"), "--port",
                               "memif:" + server_.Path("x") + ",listen",
                               "--device", "cam=gst:foosrc ! videoconvert"},
                              kSoon);
  ExpectOneLine(none, "no element \"foosrc\": is its plug-in installed?");
  const Result launch =
      Launch("tripwiresrc device=:none port='" +
             server_.network().ClientPort(0) + "' ! fakesink");
  EXPECT_NE(launch.exit_code, 0);
  EXPECT_THAT(launch.err + launch.out, HasSubstr("none"));
}

// A terminal in which somebody looks at the camera, and what was on it before.
class Looker {
 public:
  // `how` is what comes before the command.
  Looker(DeviceServer& server, const std::string& how) {
    ::tcgetattr(line_.slave.get(), &before_);
    process_ = server.BeginLine(how + Quoted(server.Command({"view", ":cam", "--terminal"})) + " < " +
                                line_.path + " > " + line_.path);
  }
  Process& process() { return process_; }
  bool echoes() const {
    termios now{};
    ::tcgetattr(line_.slave.get(), &now);
    return (now.c_lflag & ECHO) != 0;
  }
  void Type(char key) { ASSERT_EQ(::write(line_.master.get(), &key, 1), 1); }
  // Until a picture, or part of one, was drawn.
  bool SeesPicture() {
    return Eventually(kSoon, [&] { return Read().find("\x1b[H") != std::string::npos; });
  }
  // It has ended well, and the terminal is as it was.
  void ExpectGone() {
    EXPECT_TRUE(Eventually(kSoon, [&] { return Read(), !process_.Running(); }));
    ExpectEndedWell();
    constexpr std::string_view kLeft = "\x1b[?25h\x1b[?1049l";
    EXPECT_EQ(Read().rfind(kLeft), seen_.size() - kLeft.size())
        << "the picture is gone, the cursor is back, and nothing follows";
  }
  void ExpectEndedWell() {
    EXPECT_EQ(process_.Wait(kSoon), 0) << process_.err();
    EXPECT_EQ(process_.err(), "");
    termios now{};
    ::tcgetattr(line_.slave.get(), &now);
    EXPECT_EQ(now.c_iflag, before_.c_iflag);
    EXPECT_EQ(now.c_lflag, before_.c_lflag);
    EXPECT_EQ(0, std::memcmp(now.c_cc, before_.c_cc, sizeof now.c_cc));
  }

 private:
  const std::string& Read() {
    pollfd wait{line_.master.get(), POLLIN, 0};
    char bytes[4096];
    while (::poll(&wait, 1, 0) == 1) {
      const ssize_t n = ::read(line_.master.get(), bytes, sizeof bytes);
      if (n <= 0) break;
      seen_.append(bytes, static_cast<size_t>(n));
    }
    return seen_;
  }

  FarLine line_;
  termios before_{};
  Process process_;
  std::string seen_;
};

TEST_P(MediaTest, APictureInATerminalLeavesItAsItWas) {
  server_.Start({kCamera});
  const std::function<void(Looker&)> kEnds[] = {
      [](Looker& looker) { looker.Type('q'); },
      [](Looker& looker) { looker.process().Signal(SIGTERM); },
      [](Looker& looker) { looker.process().Signal(SIGINT); }};
  for (const auto& end : kEnds) {
    Looker looker(server_, "exec ");
    ASSERT_TRUE(looker.SeesPicture()) << looker.process().err();
    EXPECT_TRUE(Eventually(kSoon, [&] { return !looker.echoes(); }));
    // What means nothing is not shown, and does nothing.
    for (const char key : {'x', '\n', '\x1c', '\x1a', '\x13'}) looker.Type(key);
    end(looker);
    looker.ExpectGone();
  }
  // In a terminal of its own, Ctrl-C is typed.
  Looker looker(server_, "exec setsid --ctty --wait ");
  ASSERT_TRUE(looker.SeesPicture()) << looker.process().err();
  EXPECT_TRUE(Eventually(kSoon, [&] { return !looker.echoes(); }));
  looker.Type('\x03');
  looker.ExpectGone();
}

TEST_P(MediaTest, ATerminalThatTakesNothingHoldsNobody) {
  server_.Start({kCamera});
  const std::function<void(Looker&)> kEnds[] = {
      [](Looker& looker) { looker.Type('q'); },
      [](Looker& looker) { looker.process().Signal(SIGTERM); }};
  for (const auto& end : kEnds) {
    Looker looker(server_, "exec ");
    ASSERT_TRUE(looker.SeesPicture()) << looker.process().err();
    SleepMs(2000);  // far more pictures than a terminal holds
    end(looker);
    looker.ExpectEndedWell();
  }
}

INSTANTIATE_TEST_SUITE_P(Wires, MediaTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth,
                                           Wire::kFaultyMemif,
                                           Wire::kFaultyEth),
                         WireName);

// --------------------------------------------------------------------- screens

class ScreenTest : public MediaTest {};

TEST_P(ScreenTest, APictureOfAScreenIsWhatIsOnIt) {
  periph::Xvfb screen;
  ASSERT_NE(screen.display(), "");
  periph::XProgram program(screen.display(), 0x3366cc);
  server_.Start({"screen=x11:" + screen.display()});
  const std::string path = server_.Path("screen.png");
  ASSERT_EQ(server_.Run({"record", ":screen", path}).exit_code, 0);
  const std::string pixels = MustRun({"ffmpeg", "-v", "error", "-i", path, "-f",
                                      "rawvideo", "-pix_fmt", "rgb24", "-"});
  ASSERT_EQ(pixels.size(), 320u * 240 * 3);
  // But for the pointer in the middle, one colour.
  size_t right = 0;
  for (size_t i = 0; i < pixels.size(); i += 3)
    right += pixels.compare(i, 3, "\x33\x66\xcc") == 0;
  EXPECT_GT(right, 320u * 240 - 1000);
}

TEST_P(ScreenTest, WhatIsTypedInTheWindowArrivesAtTheScreen) {
  periph::Xvfb there, here("640x480x24");
  periph::XProgram program(there.display(), 0);
  server_.Start(
      {"screen=x11:" + there.display(), "desk=x11:" + here.display()});
  SpawnOptions options = server_.network().ClientNode(0);
  options.environment.push_back("DISPLAY=" + here.display());
  Process view(server_.Command({"view", ":screen"}), options);
  periph::XTyper typer(here.display());
  // The window is there when a button pressed in it arrives over there.
  ASSERT_TRUE(Eventually(kSoon, [&] {
    typer.Click(100, 100);
    return program.Pending() || !view.Running();
  })) << view.err();
  ASSERT_TRUE(view.Running()) << view.err();
  typer.Type(XK_h);
  EXPECT_EQ(program.NextKey(KeyPress), KeySym{XK_h});
  typer.Type(XK_Return);
  EXPECT_EQ(program.NextKey(KeyPress), KeySym{XK_Return});
  view.Signal(SIGINT);
  EXPECT_EQ(view.Wait(kSoon), 0) << view.err();
}

TEST_P(ScreenTest, AScreenThatDiesComesBack) {
  auto screen = std::make_unique<periph::Xvfb>();
  const std::string display = screen->display();
  server_.Start({"screen=x11:" + display});
  const std::string path = server_.Path("screen.y4m");
  Process record = server_.Begin({"record", ":screen", path});
  const auto size = [&] { return Exists(path) ? ReadFile(path).size() : 0; };
  ASSERT_TRUE(Eventually(kSoon, [&] { return size() > 1 << 19; }))
      << record.err();
  screen.reset();
  EXPECT_TRUE(Eventually(kSoon, [&] {
    return server_.Run({"ls"}).out.find("absent") != std::string::npos;
  }));
  const size_t before = size();
  // Without a lock in /tmp: one of an earlier sandbox may be left there, with a
  // number that is another process's here.
  Process again({"Xvfb", display, "-screen", "0", "320x240x24", "-noreset",
                 "-nolisten", "tcp", "-nolock"});
  EXPECT_TRUE(Eventually(kSoon, [&] { return size() > before + (1 << 19); }))
      << record.err() << again.err();
  EXPECT_TRUE(server_.process().Running());
  record.Signal(SIGINT);
  EXPECT_EQ(record.Wait(kSoon), 0) << record.err();
}

INSTANTIATE_TEST_SUITE_P(Wires, ScreenTest, ::testing::Values(Wire::kMemif),
                         WireName);

TEST(GstPlugin, InspectsCleanly) {
  setenv("GST_PLUGIN_PATH", TRIPWIRE_GST_PLUGINS, 1);
  for (const char* what : {"tripwire", "tripwiresrc", "tripwiresink"}) {
    const Result result = Execute({"gst-inspect-1.0", what}, kSoon);
    EXPECT_EQ(result.exit_code, 0) << what;
    EXPECT_EQ(result.err, "") << what;
    EXPECT_THAT(result.out, HasSubstr("tripwire"));
  }
}

}  // namespace
}  // namespace tripwire::systest

// SPDX-License-Identifier: BSD-3-Clause
// Pictures, sound and screens of one process in others: tools, files,
// GStreamer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>

#include "tests/system/harness/network.h"
#include "tests/system/harness/process.h"
#include "tests/system/harness/share.h"
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

std::string Quoted(const Argv& argv) {
  std::string line;
  for (const std::string& word : argv) line += "'" + word + "' ";
  return line;
}

class MediaTest : public ::testing::TestWithParam<Wire> {
 protected:
  MediaTest() : network_(GetParam(), temp_.path(), 2) {
    setenv("GST_PLUGIN_PATH", TRIPWIRE_GST_PLUGINS, 1);
    // The plug-ins under test are not those of a user's cache.
    setenv("GST_REGISTRY", (temp_.path() + "/registry").c_str(), 1);
  }
  ~MediaTest() override {
    if (HasFailure()) std::cerr << "--- tw-periphd:\n" << server_.err();
  }
  void Start(const Argv& devices) {
    Argv command = {Program("tw-periphd"), "--node", "lab", "--port",
                    network_.ServerPort()};
    for (const std::string& device : devices) {
      command.push_back("--device");
      command.push_back(device);
    }
    server_ = Process(command, network_.ServerNode());
    ASSERT_TRUE(Eventually(kSoon, [&] {
      return server_.err().find("ready") != std::string::npos ||
             !server_.Running();
    }));
    ASSERT_TRUE(server_.Running()) << server_.err();
  }
  Argv Command(Argv arguments, int client = 0) {
    arguments.insert(arguments.begin(), Program("tw-periph"));
    arguments.push_back("--port");
    arguments.push_back(network_.ClientPort(client));
    return arguments;
  }
  Result Use(const Argv& arguments, int client = 0) {
    return Execute(Command(arguments, client), kSoon,
                   network_.ClientNode(client));
  }
  // `tw-periph ARGUMENTS | tw-picture-check`: the check's report, then what
  // tw-periph said on standard error.
  Argv CheckedCat(const Argv& arguments, int client, const std::string& said) {
    return {"bash", "-c",
            Quoted(Command(arguments, client)) + " 2>" + said +
                " | " TRIPWIRE_PICTURE_CHECK};
  }
  Argv Launch(const std::string& line) {
    return {"bash", "-c", "exec gst-launch-1.0 -q -e " + line};
  }
  std::string Source() {
    return "tripwiresrc device=:cam port='" + network_.ClientPort(0) + "'";
  }

  TempDir temp_;
  Network network_;
  Process server_;
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

void ExpectOneLine(const Result& result, const std::string& what) {
  EXPECT_GT(result.exit_code, 0);
  EXPECT_LT(result.exit_code, 126);
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1)
      << result.err;
  EXPECT_THAT(result.err, HasSubstr(what));
}

std::string Probe(const std::string& path) {
  return MustRun(
      {"ffprobe", "-v", "error", "-count_frames", "-show_entries",
       "stream=codec_name,width,height,sample_rate,channels,nb_read_frames",
       "-of", "default=noprint_wrappers=1", path});
}

TEST_P(MediaTest, CatGivesFilesThatOthersRead) {
  Start({kCamera,
         "mic=gst:audiotestsrc is-live=true ! "
         "audio/x-raw,rate=48000,channels=2"});
  const std::string video = temp_.path() + "/v", sound = temp_.path() + "/s";
  Execute({"bash", "-c",
           Quoted(Command({"cat", ":cam", "-n", "20"})) + ">" + video},
          kSoon, network_.ClientNode(0));
  const std::string seen = Probe(video);
  EXPECT_THAT(seen, HasSubstr("width=320\nheight=240\n"));
  EXPECT_THAT(seen, HasSubstr("nb_read_frames=20\n"));
  Execute({"bash", "-c",
           Quoted(Command({"cat", ":mic", "-n", "10", "--format",
                           "audio/x-raw, format=S16LE"})) +
               ">" + sound},
          kSoon, network_.ClientNode(0));
  const std::string heard = Probe(sound);
  EXPECT_THAT(heard, HasSubstr("codec_name=pcm_s16le"));
  EXPECT_THAT(heard, HasSubstr("sample_rate=48000\nchannels=2\n"));
}

TEST_P(MediaTest, RecordingsAreWholeFiles) {
  Start({kCamera,
         "mic=gst:audiotestsrc is-live=true ! "
         "audio/x-raw,rate=48000,channels=1"});
  const std::string mkv = temp_.path() + "/a.mkv",
                    wav = temp_.path() + "/a.wav",
                    png = temp_.path() + "/a.png";
  const Result video = Use({"record", ":cam", mkv, "-n", "30"});
  EXPECT_EQ(video.exit_code, 0) << video.err;
  EXPECT_THAT(video.err, HasSubstr("30 frames"));
  EXPECT_THAT(Probe(mkv), HasSubstr("nb_read_frames=30\n"));
  EXPECT_EQ(Use({"record", ":mic", wav, "-d", "1"}).exit_code, 0);
  EXPECT_THAT(Probe(wav), HasSubstr("channels=1"));
  EXPECT_EQ(Use({"record", ":cam", png}).exit_code, 0);
  EXPECT_THAT(ReadFile(png), StartsWith("\x89PNG"));
}

TEST_P(MediaTest, ARecordingEndedByTheUserIsWhole) {
  Start({kCamera});
  const std::string path = temp_.path() + "/a.y4m";
  Process record(Command({"record", ":cam", path}), network_.ClientNode(0));
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
  Start({kCamera});
  const std::string said[] = {temp_.path() + "/said0", temp_.path() + "/said1"};
  Process fast(CheckedCat({"cat", ":cam", "-n", "240"}, 0, said[0]),
               network_.ClientNode(0));
  // Without a shell between: the process that stops is the one that has the
  // ring.
  Process slow(Command({"record", ":cam", temp_.path() + "/slow.y4m", "-n",
                        "120", "--queue", "4", "--slots", "4"},
                       1),
               network_.ClientNode(1));
  ASSERT_TRUE(Eventually(kSoon, [&] {
    return Exists(temp_.path() + "/slow.y4m") &&
           ReadFile(temp_.path() + "/slow.y4m").size() > 1 << 20;
  }));
  slow.Signal(SIGSTOP);
  ASSERT_EQ(fast.Wait(kSoon), 0) << fast.err();
  slow.Signal(SIGCONT);
  ASSERT_EQ(slow.Wait(kSoon), 0) << slow.err();

  const auto seen = ParseReport(fast.out());
  EXPECT_EQ(seen.at("frames"), 240u);
  EXPECT_EQ(seen.at("torn") + seen.at("unreadable") + seen.at("backwards"), 0u)
      << fast.out();
  EXPECT_EQ(seen.at("missing"), SaidToBeMissing(ReadFile(said[0])))
      << ReadFile(said[0]);

  const std::string report =
      MustRun({TRIPWIRE_PICTURE_CHECK, temp_.path() + "/slow.y4m"});
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
  Start({kCamera});
  const std::string report = temp_.path() + "/report";
  const Result plain =
      Execute(Launch(Source() +
                     " ! identity eos-after=61 ! twtestcheck report=" + report),
              kSoon, network_.ClientNode(0));
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  const auto seen = ParseReport(ReadFile(report));
  EXPECT_GE(seen.at("frames"), 60u);
  EXPECT_EQ(seen.at("torn") + seen.at("unreadable") + seen.at("backwards"), 0u);
  // What the pipeline wants is asked of the device.
  const Result small =
      Execute(Launch(Source() +
                     " ! identity eos-after=5 ! "
                     "video/x-raw,format=RGB,width=64,height=48 ! "
                     "filesink location=" +
                     temp_.path() + "/rgb"),
              kSoon, network_.ClientNode(0));
  EXPECT_EQ(small.exit_code, 0) << small.err;
  EXPECT_GE(ReadFile(temp_.path() + "/rgb").size(), 4u * 64 * 48 * 3);
}

TEST_P(MediaTest, AnyPipelineFeedsARemoteSink) {
  const std::string report = temp_.path() + "/report";
  Start({"screen=gst:twtestcheck report=" + report,
         "file=gst:filesink location=" + temp_.path() + "/out"});
  const std::string sink =
      "tripwiresink port='" + network_.ClientPort(0) + "' device=";
  const Result picture =
      Execute(Launch("twtestpicture count=50 ! "
                     "video/x-raw,width=320,height=240,framerate=60/1 ! " +
                     sink + ":screen"),
              kSoon, network_.ClientNode(0));
  EXPECT_EQ(picture.exit_code, 0) << picture.err;
  ASSERT_TRUE(Eventually(kSoon, [&] { return Exists(report); }));
  const auto seen = ParseReport(ReadFile(report));
  EXPECT_EQ(seen.at("frames"), seen.at("last") + 1 - seen.at("missing"));
  EXPECT_GT(seen.at("frames"), 10u);
  EXPECT_EQ(seen.at("torn") + seen.at("unreadable"), 0u);

  const std::string content = RandomBytes(3, 300'000);
  WriteFile(temp_.path() + "/in", content);
  const Result bytes = Execute(
      Launch("filesrc location=" + temp_.path() + "/in ! " + sink + ":file"),
      kSoon, network_.ClientNode(0));
  EXPECT_EQ(bytes.exit_code, 0) << bytes.err;
  EXPECT_TRUE(ReadFile(temp_.path() + "/out") == content);
}

TEST_P(MediaTest, MistakesAreOneClearLine) {
  Start({"mic=gst:audiotestsrc is-live=true"});
  ExpectOneLine(Use({"cat", ":mic", "--format", "video/x-raw"}), "video/x-raw");
  ExpectOneLine(Use({"cat", ":mic", "--format", "!!"}), "!!");
  ExpectOneLine(Use({"record", ":mic", temp_.path() + "/a.png"}), "a.png");
  const Result none = Execute(
      {Program("tw-periphd"), "--port", "memif:" + temp_.path() + "/x,listen",
       "--device", "cam=gst:foosrc ! videoconvert"},
      kSoon);
  ExpectOneLine(none, "no element \"foosrc\": is its plug-in installed?");
  const Result launch = Execute(Launch("tripwiresrc device=:none port='" +
                                       network_.ClientPort(0) + "' ! fakesink"),
                                kSoon, network_.ClientNode(0));
  EXPECT_NE(launch.exit_code, 0);
  EXPECT_THAT(launch.err + launch.out, HasSubstr("none"));
}

INSTANTIATE_TEST_SUITE_P(Wires, MediaTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth,
                                           Wire::kFaultyMemif,
                                           Wire::kFaultyEth),
                         [](const auto& info) {
                           return std::string(Name(info.param));
                         });

// --------------------------------------------------------------------- screens

class ScreenTest : public MediaTest {};

TEST_P(ScreenTest, APictureOfAScreenIsWhatIsOnIt) {
  periph::Xvfb screen;
  ASSERT_NE(screen.display(), "");
  periph::XProgram program(screen.display(), 0x3366cc);
  Start({"screen=x11:" + screen.display()});
  const std::string path = temp_.path() + "/screen.png";
  ASSERT_EQ(Use({"record", ":screen", path}).exit_code, 0);
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
  Start({"screen=x11:" + there.display(), "desk=x11:" + here.display()});
  SpawnOptions options = network_.ClientNode(0);
  options.environment.push_back("DISPLAY=" + here.display());
  Process view(Command({"view", ":screen"}), options);
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
  Start({"screen=x11:" + display});
  const std::string path = temp_.path() + "/screen.y4m";
  Process record(Command({"record", ":screen", path}), network_.ClientNode(0));
  const auto size = [&] { return Exists(path) ? ReadFile(path).size() : 0; };
  ASSERT_TRUE(Eventually(kSoon, [&] { return size() > 1 << 19; }))
      << record.err();
  screen.reset();
  EXPECT_TRUE(Eventually(kSoon, [&] {
    return Use({"ls"}).out.find("absent") != std::string::npos;
  }));
  const size_t before = size();
  Process again({"Xvfb", display, "-screen", "0", "320x240x24", "-noreset",
                 "-nolisten", "tcp"});
  EXPECT_TRUE(Eventually(kSoon, [&] { return size() > before + (1 << 19); }))
      << record.err();
  EXPECT_TRUE(server_.Running());
  record.Signal(SIGINT);
  EXPECT_EQ(record.Wait(kSoon), 0) << record.err();
}

INSTANTIATE_TEST_SUITE_P(Wires, ScreenTest, ::testing::Values(Wire::kMemif),
                         [](const auto& info) {
                           return std::string(Name(info.param));
                         });

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

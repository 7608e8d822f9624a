// SPDX-License-Identifier: BSD-3-Clause
// tw-video-bench: raw video from one process to another, by Tripwire and by
// what GStreamer has: latency from the camera's clock to the viewer's, read
// from the pictures themselves, and processor time of both sides.
// docs/performance.md.
#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

using Argv = std::vector<std::string>;

struct Case {
  std::string name;
  Argv camera, viewer;
  bool viewer_first = false;  // the viewer listens
  std::string socket;         // ... or the camera does, here
};

struct Outcome {
  std::map<std::string, uint64_t> report;
  double cpu_seconds = 0;
};

pid_t Spawn(const Argv& argv) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  const int log = open("/dev/null", O_WRONLY);
  dup2(log, 1);
  if (std::getenv("VIDEO_BENCH_LOUD") == nullptr) dup2(log, 2);
  std::vector<char*> words;
  for (const std::string& word : argv)
    words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execvp(words[0], words.data());
  _exit(127);
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) +
         static_cast<double>(time.tv_usec) / 1e6;
}

// Waits for the end, at most so long; then ends it. Its processor seconds.
double Reap(pid_t pid, double seconds) {
  rusage usage{};
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (wait4(pid, nullptr, WNOHANG, &usage) == 0) {
    if (std::chrono::steady_clock::now() > end) {
      kill(pid, SIGTERM);
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      if (wait4(pid, nullptr, WNOHANG, &usage) == 0) {
        kill(pid, SIGKILL);
        wait4(pid, nullptr, 0, &usage);
      }
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
}

std::map<std::string, uint64_t> ReadReport(const std::string& path) {
  std::map<std::string, uint64_t> report;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const size_t equals = line.find('=');
    if (equals != std::string::npos) {
      report[line.substr(0, equals)] =
          std::strtoull(line.c_str() + equals + 1, nullptr, 10);
    }
  }
  return report;
}

Outcome Run(const Case& what, const std::string& report, double seconds) {
  std::filesystem::remove(report);
  // Of the case before: a camera that is terminated leaves its socket.
  if (!what.socket.empty()) std::filesystem::remove(what.socket);
  pid_t viewer = -1, camera = -1;
  if (what.viewer_first) {
    viewer = Spawn(what.viewer);
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
  }
  if (!what.camera.empty()) {
    camera = Spawn(what.camera);
    for (int i = 0; i < 500 && !what.socket.empty() &&
                    !std::filesystem::exists(what.socket);
         ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    if (!what.viewer_first)
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  if (!what.viewer_first) viewer = Spawn(what.viewer);
  Outcome outcome;
  outcome.cpu_seconds = Reap(viewer, seconds + 10);
  if (camera > 0) outcome.cpu_seconds += Reap(camera, 0);
  outcome.report = ReadReport(report);
  return outcome;
}

Argv Launch(std::vector<std::string> words) {
  Argv argv = {"gst-launch-1.0", "-q"};
  argv.insert(argv.end(), words.begin(), words.end());
  return argv;
}

// Splits at spaces; no word here has any.
Argv Words(const std::string& line) {
  Argv words;
  for (size_t at = 0; at < line.size();) {
    const size_t end = std::min(line.find(' ', at), line.size());
    if (end > at) words.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

std::vector<Case> Cases(const std::string& directory, int width, int height,
                        int fps, uint64_t frames, const std::string& report) {
  const std::string size = fmt::format("width={},height={}", width, height);
  const std::string caps =
      fmt::format("video/x-raw,format=I420,{},framerate={}/1", size, fps);
  const std::string camera = "twtestpicture ! " + caps;
  const std::string check = fmt::format(
      " ! identity eos-after={} ! twtestcheck report={}", frames + 1, report);
  const std::string socket = directory + "/memif", shm = directory + "/shm";
  const auto rtp = [&](const std::string& name, int mtu) {
    Case made{name, {}, {}, true, ""};
    made.camera = Launch(Words(fmt::format(
        "{} ! rtpvrawpay mtu={} ! udpsink host=127.0.0.1 port=15004 sync=false",
        camera, mtu)));
    made.viewer = Launch(Words(
        fmt::format("udpsrc port=15004 buffer-size=16777216 "
                    "caps=application/x-rtp,media=video,clock-rate=90000,"
                    "encoding-name=RAW,sampling=YCbCr-4:2:0,depth=(string)8,"
                    "width=(string){},height=(string){},"
                    "colorimetry=(string)BT709-2,payload=96 ! rtpvrawdepay{}",
                    width, height, check)));
    return made;
  };
  std::vector<Case> cases;
  cases.push_back({"in one process",
                   {},
                   Launch(Words(camera + " ! queue" + check)),
                   false,
                   ""});
  cases.push_back(
      {"tripwire, memif",
       {TRIPWIRE_BIN_DIR "/tw-periphd", "--node", "bench", "--port",
        "memif:" + socket + ",listen", "--device", "cam=gst:" + camera},
       Launch(Words("tripwiresrc device=:cam port=memif:" + socket + check)),
       false,
       socket});
  cases.push_back(rtp("RTP/UDP, 1400 bytes", 1400));
  cases.push_back(rtp("RTP/UDP, 60000 bytes", 60000));
  cases.push_back(
      {"TCP, gdppay",
       Launch(Words(camera +
                    " ! gdppay ! tcpserversink host=127.0.0.1 port=15005 "
                    "sync=false recover-policy=latest")),
       Launch(
           Words("tcpclientsrc host=127.0.0.1 port=15005 ! gdpdepay" + check)),
       false, ""});
  cases.push_back(
      {"shmsink",
       Launch(Words(camera + " ! shmsink socket-path=" + shm +
                    " shm-size=67108864 sync=false wait-for-connection=false")),
       Launch(Words("shmsrc is-live=true socket-path=" + shm + " ! " + caps +
                    check)),
       false, shm});
  return cases;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Raw video from process to process: latency, and processor time of both "
      "sides"};
  double seconds = 6;
  app.add_option("--seconds", seconds, "of each measurement")
      ->check(CLI::Range(0.5, 600.0));
  CLI11_PARSE(app, argc, argv);
  setenv("GST_PLUGIN_PATH", TRIPWIRE_GST_PLUGINS, 1);
  char directory[] = "/tmp/tw-video-bench-XXXXXX";
  if (mkdtemp(directory) == nullptr) return 1;
  const std::string report = std::string(directory) + "/report";
  // The list of plug-ins is made once, not in the first measurement.
  Reap(Spawn({"gst-inspect-1.0", "tripwiresrc"}), 60);

  int result = 0;
  for (const int height : {720, 1080}) {
    const int width = height * 16 / 9, fps = 60;
    const auto frames = static_cast<uint64_t>(seconds * fps);
    const double gigabytes =
        static_cast<double>(frames) * width * height * 1.5 / 1e9;
    fmt::print("{}x{} at {}, I420, {} frames, {:.2f} GB\n", width, height, fps,
               frames, gigabytes);
    fmt::print("{:24} {:>9} {:>9} {:>9} {:>12} {:>8} {:>5}\n", "", "p50 us",
               "p99 us", "max us", "CPU s per GB", "missing", "torn");
    for (const Case& what :
         Cases(directory, width, height, fps, frames, report)) {
      const Outcome outcome = Run(what, report, seconds);
      const auto number = [&outcome](const char* key) {
        const auto found = outcome.report.find(key);
        return found == outcome.report.end() ? uint64_t{0} : found->second;
      };
      const double carried =
          static_cast<double>(number("frames")) * width * height * 1.5 / 1e9;
      if (carried == 0) {
        fmt::print("{:24} nothing arrived\n", what.name);
        result = 1;
        continue;
      }
      fmt::print("{:24} {:>9} {:>9} {:>9} {:>12.2f} {:>8} {:>5}\n", what.name,
                 number("p50_us"), number("p99_us"), number("max_us"),
                 outcome.cpu_seconds / carried, number("missing"),
                 number("torn") + number("unreadable"));
    }
  }
  std::filesystem::remove_all(directory);
  return result;
}

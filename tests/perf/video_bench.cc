// SPDX-License-Identifier: BSD-3-Clause
// tw-video-bench: raw video from one process to another, by Tripwire and by
// what GStreamer has: latency from the camera's clock to the viewer's, read
// from the pictures themselves, and processor time of both sides.
// docs/performance.md.
#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
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

// Pictures that come before the measurement, so that what happens once does not
// count; those of the measurement; and some that keep the stream going until
// its end.
struct Span {
  double warm_up_seconds = 0.5, seconds = 0;
  double total() const { return warm_up_seconds + seconds + 0.25; }
};

struct Outcome {
  std::map<std::string, uint64_t> report;
  double cpu_share = 0;  // of one processor, by both processes

  uint64_t number(const char* key) const {
    const auto found = report.find(key);
    return found == report.end() ? 0 : found->second;
  }
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

// What a process has used of processors so far.
double CpuSeconds(pid_t pid) {
  clockid_t clock;
  timespec used{};
  if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 ||
      clock_gettime(clock, &used) != 0) {
    return 0;
  }
  return static_cast<double>(used.tv_sec) +
         static_cast<double>(used.tv_nsec) / 1e9;
}

void Sleep(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// Waits for the end, at most so long; then ends it.
void Reap(pid_t pid, double seconds) {
  if (pid <= 0) return;
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (waitpid(pid, nullptr, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > end) {
      kill(pid, SIGTERM);
      Sleep(0.5);
      if (waitpid(pid, nullptr, WNOHANG) == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
      }
      return;
    }
    Sleep(0.02);
  }
}

bool Appears(const std::string& path, double seconds) {
  for (double waited = 0; !std::filesystem::exists(path); waited += 0.01) {
    if (waited > seconds) return false;
    Sleep(0.01);
  }
  return true;
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

Outcome Run(const Case& what, const std::string& report, const Span& span) {
  const std::string begun = report + ".begun";
  std::filesystem::remove(report);
  std::filesystem::remove(begun);
  // Of the case before: a camera that is terminated leaves its socket.
  if (!what.socket.empty()) std::filesystem::remove(what.socket);
  pid_t viewer = -1, camera = -1;
  if (what.viewer_first) {
    viewer = Spawn(what.viewer);
    Sleep(0.7);
  }
  if (!what.camera.empty()) {
    camera = Spawn(what.camera);
    if (!what.socket.empty()) Appears(what.socket, 5);
    if (!what.viewer_first) Sleep(0.3);
  }
  if (!what.viewer_first) viewer = Spawn(what.viewer);
  Outcome outcome;
  const auto used = [&] { return CpuSeconds(viewer) + CpuSeconds(camera); };
  if (Appears(begun, 10)) {  // the first picture was seen
    Sleep(span.warm_up_seconds);
    const auto began = std::chrono::steady_clock::now();
    const double before = used();
    Sleep(span.seconds);
    const double spent = used() - before;
    const std::chrono::duration<double> took =
        std::chrono::steady_clock::now() - began;
    outcome.cpu_share = spent / took.count();
    Reap(viewer, span.seconds + 10);
  }
  Reap(viewer, 0);
  Reap(camera, 0);
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
                        int fps, const Span& span, const std::string& report) {
  const std::string size = fmt::format("width={},height={}", width, height);
  const std::string caps =
      fmt::format("video/x-raw,format=I420,{},framerate={}/1", size, fps);
  const std::string camera = "twtestpicture ! " + caps;
  const std::string check =
      fmt::format(" ! identity eos-after={} ! twtestcheck report={} untimed={}",
                  static_cast<int>(span.total() * fps) + 1, report,
                  static_cast<int>(span.warm_up_seconds * fps));
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

// All ways of one size of picture. Whether pictures came by each.
bool RunAll(const std::string& directory, int height, const Span& span) {
  const int width = height * 16 / 9, fps = 60;
  const std::string report = directory + "/report";
  const double gigabytes_per_second = fps * width * height * 1.5 / 1e9;
  fmt::print("{}x{} at {}, I420, {:.3f} GB/s, for {} seconds\n", width, height,
             fps, gigabytes_per_second, span.seconds);
  fmt::print("{:24} {:>9} {:>9} {:>9} {:>12} {:>8} {:>5}\n", "", "p50 us",
             "p99 us", "max us", "CPU s per GB", "missing", "torn");
  bool complete = true;
  for (const Case& what : Cases(directory, width, height, fps, span, report)) {
    const Outcome outcome = Run(what, report, span);
    const auto frames = static_cast<double>(outcome.number("frames"));
    if (frames == 0) {
      fmt::print("{:24} nothing arrived\n", what.name);
      complete = false;
      continue;
    }
    const double came =
        frames / (frames + static_cast<double>(outcome.number("missing")));
    fmt::print("{:24} {:>9} {:>9} {:>9} {:>12.2f} {:>8} {:>5}\n", what.name,
               outcome.number("p50_us"), outcome.number("p99_us"),
               outcome.number("max_us"),
               outcome.cpu_share / (gigabytes_per_second * came),
               outcome.number("missing"),
               outcome.number("torn") + outcome.number("unreadable"));
    std::fflush(stdout);
  }
  return complete;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Raw video from process to process: latency, and processor time of both "
      "sides"};
  Span span{.seconds = 6};
  std::vector<int> heights = {720, 1080};
  app.add_option("--seconds", span.seconds, "of each measurement")
      ->check(CLI::Range(0.5, 600.0))
      ->capture_default_str();
  app.add_option("--warm-up", span.warm_up_seconds,
                 "seconds of pictures before it")
      ->check(CLI::Range(0.0, 600.0))
      ->capture_default_str();
  app.add_option("--heights", heights, "of the pictures, 16:9")
      ->check(CLI::Range(200, 4320))
      ->delimiter(',')
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  setenv("GST_PLUGIN_PATH", TRIPWIRE_GST_PLUGINS, 1);
  char directory[] = "/tmp/tw-video-bench-XXXXXX";
  if (mkdtemp(directory) == nullptr) return 1;
  // The list of plug-ins is made once, not in the first measurement.
  Reap(Spawn({"gst-inspect-1.0", "tripwiresrc"}), 60);

  bool complete = true;
  for (const int height : heights) complete &= RunAll(directory, height, span);
  std::filesystem::remove_all(directory);
  return complete ? 0 : 1;
}

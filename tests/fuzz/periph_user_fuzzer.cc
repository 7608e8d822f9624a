// SPDX-License-Identifier: BSD-3-Clause
// A program that uses a source or a sink of a server that says and writes what
// it likes: rightly, nearly rightly, out of turn, nonsense, or nothing more.
// The calls return what they may, an error is one line, what comes from a
// server that keeps the rules is what it sent, all of it and in order, also
// over links that it closed, and nothing but that server's own doing ends a
// stream for good. Memory is granted within limits and let go of.
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "periph/client/frame_output.h"
#include "periph/client/frame_stream.h"
#include "periph/stream/feeder.h"
#include "tests/fuzz/driven_network.h"
#include "tests/fuzz/periph_told_server.h"

using namespace tripwire;          // NOLINT: a fuzzer's main file
using namespace tripwire::periph;  // NOLINT

namespace {

using fuzz::Require;

// Whatever happened, this much later it is over, or goes on.
constexpr uint64_t kLongNs = 120 * kSecond;

class UserRun {
 public:
  UserRun(fuzz::Script& script, bool sink)
      : script_(script), network_([this](bool first) {
          if (server_.has_value()) server_->Turn(first);
        }) {
    server_.emplace(network_.there(), script_, sink);
    wish_.node = "there";
    wish_.device = "cam";
    wish_.program = "fuzzer";
    wish_.sink = sink;
    wish_.options.slots = kUserSlots;
    wish_.options.max_ring_bytes = kUserRingBytes;
    wish_.options.reconnect = script_.Take() % 4 != 0;
  }
  virtual ~UserRun() { network_.Quieten(); }

 protected:
  uint64_t NowNs() { return network_.clock().NowNs(); }
  uint64_t Deadline() {
    const uint8_t choice = script_.Take();
    return choice < 128 ? 0 : NowNs() + (choice - 128) * kMillisecond;
  }
  // A program shows what it is told.
  static void Show(const std::string& text) {
    Require(text == Printable(text, kMaxStreamMessageBytes),
            "texts are one line, for people");
  }
  // What a call returned that waits until `deadline_ns` at most.
  void Judge(const absl::Status& status, uint64_t deadline_ns) {
    Show(std::string(status.message()));
    if (absl::IsDeadlineExceeded(status)) {
      Require(deadline_ns <= NowNs(),
              "nobody says that it is late but in time");
      return Require(!over_.has_value(), "what is over stays over");
    }
    if (status.ok()) {
      return Require(!over_.has_value(), "what is over stays over");
    }
    if (over_.has_value())
      return Require(status == *over_, "what is over stays over");
    over_ = status;
    if (absl::IsCancelled(status))
      return Require(cancelled_, "nobody else cancels");
    if (!wish_.options.reconnect && absl::IsUnavailable(status)) return;
    Require(server_->may_be_over(), "a stream ends for a reason");
    const ToldStream& stream = *server_->stream();
    const absl::StatusCode code =
        stream.end.value_or(absl::StatusCode::kUnknown);
    if (server_->ever_broke_rules() || code == absl::StatusCode::kUnknown)
      return;
    JudgeEnd(status.code(), code);
  }
  virtual void JudgeEnd(absl::StatusCode got, absl::StatusCode told) {
    Require(got == told, "a stream ends for the reason that was told");
  }
  // The server does everything right from now on: the stream is over, or goes
  // on.
  template <typename GoOn>
  void Recover(GoOn go_on) {
    server_->Reform();
    const uint64_t until_ns = NowNs() + kLongNs;
    while (!over_.has_value() && !go_on()) {
      Require(NowNs() < until_ns, "a stream is over, or goes on");
    }
  }

  fuzz::Script& script_;
  fuzz::DrivenNetwork network_;
  std::optional<ToldServer> server_;
  StreamWish wish_;
  bool cancelled_ = false;
  std::optional<absl::Status> over_;
};

// ------------------------------------------------------------------------ a
// source

class SourceRun final : public UserRun {
 public:
  explicit SourceRun(fuzz::Script& script) : UserRun(script, false) {}
  void Steps() {
    auto opened = RemoteSource::Open(network_.here(), wish_);
    if (!opened.ok()) {
      return Show(std::string(opened.status().message()));
    }
    source_ = *std::move(opened);
    for (int i = 0; i < 100 && !script_.ended(); ++i) Step();
    views_.clear();
    Recover([this] { return Take(NowNs() + 20 * kMillisecond); });
    views_.clear();
    source_.reset();
  }

 private:
  void Step() {
    switch (script_.Take() % 8) {
      case 0:
        if (!views_.empty()) CheckAndRelease(script_.Take() % views_.size());
        return;
      case 1:
        if (script_.Take() < 8) {
          source_->Cancel();
          cancelled_ = true;
        }
        return;
      case 2:
        return Show(source_->format());
      default:
        Take(Deadline());
    }
  }
  bool Take(uint64_t deadline_ns) {
    auto view = source_->Next(deadline_ns);
    Judge(view.status(), deadline_ns);
    const RingCounters counters = source_->counters();
    if (!view.ok()) {
      Require(counters.received == taken_, "frames are counted");
      return false;
    }
    ++taken_;
    Require(counters.received == taken_, "frames are counted");
    Require(view->data().size() <= source_->max_frame_bytes(),
            "no frame is larger than said");
    Show(source_->format());
    if (!server_->ever_broke_rules()) Compare(*view, counters);
    views_.push_back(
        {std::move(*view),
         std::vector<uint8_t>(view->data().begin(), view->data().end())});
    return true;
  }
  void Compare(const FrameView& view, const RingCounters& counters) {
    std::deque<ToldFrame>& sent = server_->on_the_way;
    while (!sent.empty() && sent.front().number != view.frame().number) {
      sent.pop_front();
      ++lost_;
    }
    Require(!sent.empty(), "what comes was sent, once, in order");
    Require(counters.lost == lost_, "what is missing is counted");
    Require(lost_ == 0, "all that was sent comes");
    Require(std::equal(view.data().begin(), view.data().end(),
                       sent.front().bytes.begin(), sent.front().bytes.end()),
            "a frame comes as it was sent");
    Require(source_->format() == sent.front().format,
            "in the format that was told");
    sent.pop_front();
  }
  void CheckAndRelease(size_t which) {
    const auto it = views_.begin() + static_cast<ptrdiff_t>(which);
    Require(server_->ever_broke_rules() ||
                std::equal(it->bytes.begin(), it->bytes.end(),
                           it->view.data().begin()),
            "a frame stays as it is while somebody looks");
    views_.erase(it);
  }
  void JudgeEnd(absl::StatusCode got, absl::StatusCode told) override {
    if (told == absl::StatusCode::kOk) told = absl::StatusCode::kOutOfRange;
    UserRun::JudgeEnd(got, told);
    Require(server_->on_the_way.empty(),
            "all that was sent comes before the end");
  }

  struct Viewed {
    FrameView view;
    std::vector<uint8_t> bytes;
  };
  std::unique_ptr<FrameStream> source_;
  std::deque<Viewed> views_;
  uint64_t taken_ = 0, lost_ = 0;
};

// -------------------------------------------------------------------------- a
// sink

class SinkRun final : public UserRun {
 public:
  explicit SinkRun(fuzz::Script& script) : UserRun(script, true) {}
  void Steps() {
    auto opened = RemoteSink::Open(network_.here(), wish_);
    if (!opened.ok()) {
      return Show(std::string(opened.status().message()));
    }
    sink_ = *std::move(opened);
    for (int i = 0; i < 100 && !script_.ended(); ++i) Step();
    if (!finished_) {
      Recover([this] { return Put(NowNs() + 20 * kMillisecond); });
    }
    sink_.reset();
    network_.Quieten();
    // The next feeder lets go of what is left.
    const auto context = network_.here().CreateContext();
    network_.RunUntil(
        [&] {
          Feeder(*context, LinkId(), {}).Pump();
          return held_ == 0;
        },
        kLongNs);
    Require(held_ == 0, "memory is let go of");
  }

 private:
  void Step() {
    switch (script_.Take() % 16) {
      case 0:
        if (script_.Take() < 8) {
          sink_->Cancel();
          cancelled_ = true;
        }
        return;
      case 1:
        return Show(sink_->format());
      case 2:
        if (script_.Take() < 32) Finish(Deadline());
        return;
      case 3:
        return (void)sink_->Tend();
      default:
        if (!finished_) Put(Deadline());
    }
  }
  bool Put(uint64_t deadline_ns) {
    const size_t length =
        script_.Take() % (sink_->max_frame_bytes() % 4096 + 2);
    auto* bytes = new std::vector<uint8_t>(length);
    for (size_t i = 0; i < length; ++i)
      (*bytes)[i] = static_cast<uint8_t>(number_ * 5 + i);
    ToldFrame copy{*bytes, "", number_};
    ++held_;
    periph::Frame frame;
    frame.data = *bytes;
    std::shared_ptr<const void> owner(bytes->data(),
                                      [this, bytes](const void*) {
                                        --held_;
                                        delete bytes;
                                      });
    if (script_.Take() % 2 == 0) frame.owner = owner;
    const uint64_t dropped = sink_->counters().dropped;
    // It may be there before Put returns.
    server_->put.push_back(std::move(copy));
    const absl::Status put = sink_->Put(frame, deadline_ns);
    if (!over_.has_value() && length > sink_->max_frame_bytes()) {
      Require(!put.ok(), "what is too large for the device is not put");
    }
    if (!absl::IsInvalidArgument(put) || length <= sink_->max_frame_bytes()) {
      Judge(put, deadline_ns);
    }
    if (!put.ok()) {
      Require(
          server_->ever_broke_rules() ||
              (!server_->put.empty() && server_->put.back().number == number_),
          "what could not be put does not come");
      if (!server_->put.empty() && server_->put.back().number == number_)
        server_->put.pop_back();
      return false;
    }
    Require(sink_->counters().dropped == dropped,
            "what could be put is not left out");
    ++number_;
    Require(sink_->counters().sent == number_, "frames are counted");
    return true;
  }
  void Finish(uint64_t deadline_ns) {
    finished_ = true;
    const absl::Status end = sink_->Finish(deadline_ns);
    Show(std::string(end.message()));
    if (!end.ok() || server_->ever_broke_rules()) return;
    Require(server_->stream()->end == absl::StatusCode::kOk,
            "it was told that all was played");
  }
  // The device's proper end, while somebody puts, is news to him.
  void JudgeEnd(absl::StatusCode got, absl::StatusCode told) override {
    if (told == absl::StatusCode::kOk) told = absl::StatusCode::kUnavailable;
    UserRun::JudgeEnd(got, told);
  }

  std::unique_ptr<RemoteSink> sink_;
  uint64_t number_ = 0;
  int held_ = 0;
  bool finished_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Script script(data, size);
  if (script.Take() % 2 == 0) {
    SourceRun(script).Steps();
  } else {
    SinkRun(script).Steps();
  }
  return 0;
}

// SPDX-License-Identifier: BSD-3-Clause
// exec: a program's standard output and input.
#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "periph/device/byte_sink.h"
#include "periph/device/byte_source.h"
#include "periph/device/bytes.h"
#include "periph/device/device.h"
#include "periph/device/program.h"

namespace tripwire::periph {
namespace {

// How long a program that closed its output has to end, so that we can say how.
constexpr auto kEndingTime = std::chrono::seconds(1);

// One process and who uses it.
struct Run {
  std::unique_ptr<Program> program;
  int users = 0;
  int writers = 0;  // that have not finished
  bool has_reader = false;
};

// The process that all users of a device share, while there are any.
// Thread-safe; outlives the device in its users' hands.
class SharedProgram {
 public:
  enum class Way : uint8_t { kReads, kWrites };

  explicit SharedProgram(std::string command) : command_(std::move(command)) {}
  ~SharedProgram() {
    if (ending_.joinable()) ending_.join();
  }
  const std::string& command() const { return command_; }

  // FAILED_PRECONDITION if somebody reads already, or its input has ended.
  absl::StatusOr<std::shared_ptr<Run>> Use(Way way);
  // Of a user that Use gave it to.
  void Release(const std::shared_ptr<Run>& run, Way way, bool has_finished);
  // A writer has written all it had: with the last of them the input ends. True
  // if it has ended.
  bool Finish(Run& run);

 private:
  absl::Status Start();  // REQUIRES: mutex_

  const std::string command_;
  std::mutex mutex_;
  std::shared_ptr<Run> run_;  // if somebody uses it
  std::thread ending_;        // ends a process that nobody uses
};

absl::Status SharedProgram::Start() {
  // Two at once would want the same things.
  if (ending_.joinable()) ending_.join();
  auto program = Program::Start(command_);
  if (!program.ok()) return program.status();
  run_ = std::make_shared<Run>();
  run_->program = *std::move(program);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Run>> SharedProgram::Use(Way way) {
  const std::lock_guard lock(mutex_);
  const bool is_new = run_ == nullptr || run_->program->ended();
  if (is_new) {
    if (auto status = Start(); !status.ok()) return status;
  }
  Run& run = *run_;
  if (way == Way::kReads) {
    if (run.has_reader)
      return absl::FailedPreconditionError("its output is read already");
    run.has_reader = true;
    run.program->DiscardOutput(false);
  } else {
    if (!run.program->input_is_open()) {
      return absl::FailedPreconditionError(
          "the program's input has ended; it starts anew when the program has "
          "too");
    }
    ++run.writers;
    if (!run.has_reader) run.program->DiscardOutput(true);
  }
  ++run.users;
  return run_;
}

bool SharedProgram::Finish(Run& run) {
  const std::lock_guard lock(mutex_);
  if (run.writers > 0 && --run.writers == 0) run.program->CloseInput();
  return !run.program->input_is_open();
}

void SharedProgram::Release(const std::shared_ptr<Run>& run, Way way,
                            bool has_finished) {
  const std::lock_guard lock(mutex_);
  if (way == Way::kReads) {
    run->has_reader = false;
    run->program->DiscardOutput(true);
  } else if (!has_finished) {
    --run->writers;
  }
  if (--run->users > 0) return;
  if (run_ == run) run_.reset();
  if (ending_.joinable()) ending_.join();
  // Whoever leaves does not wait for it.
  ending_ = std::thread(
      [program = std::move(run->program)]() mutable { program.reset(); });
}

class ProgramInput final : public ByteInput {
 public:
  ProgramInput(std::shared_ptr<SharedProgram> shared, std::shared_ptr<Run> run)
      : shared_(std::move(shared)), run_(std::move(run)) {}
  ~ProgramInput() override {
    shared_->Release(run_, SharedProgram::Way::kReads, false);
  }

  int fd() const override { return run_->program->output_fd(); }
  Piece Read(std::span<uint8_t> into) override {
    Piece piece = ReadPiece(fd(), into, shared_->command());
    if (piece.what != What::kEnd || !piece.why.ok()) return piece;
    // How it ended is known in a moment, unless it goes on in silence.
    const auto now = std::chrono::steady_clock::now();
    if (give_up_ == std::chrono::steady_clock::time_point{})
      give_up_ = now + kEndingTime;
    const auto ended = run_->program->ended();
    if (!ended && now < give_up_) return {};
    return {What::kEnd, 0, ended.value_or(absl::OkStatus())};
  }

 private:
  const std::shared_ptr<SharedProgram> shared_;
  const std::shared_ptr<Run> run_;
  std::chrono::steady_clock::time_point give_up_;
};

class ProgramOutput final : public ByteOutput {
 public:
  ProgramOutput(std::shared_ptr<SharedProgram> shared, std::shared_ptr<Run> run)
      : shared_(std::move(shared)), run_(std::move(run)) {}
  ~ProgramOutput() override {
    shared_->Release(run_, SharedProgram::Way::kWrites, has_finished_);
  }

  int fd() const override { return run_->program->input_fd(); }
  absl::Status Failed(int error) override {
    if (error == EBADF)
      return absl::FailedPreconditionError("the program's input has ended");
    if (error != EPIPE) return DeviceError(error, shared_->command());
    const auto ended = run_->program->ended();
    if (ended && !ended->ok()) return *ended;
    return absl::AbortedError(absl::StrCat(
        "'", shared_->command(), "' ", ended ? "has ended" : "reads no more"));
  }
  // All was played when the program, having read the end of its input, has
  // ended.
  absl::StatusOr<bool> Done() override {
    if (!has_finished_) {
      has_finished_ = true;
      input_ended_ = shared_->Finish(*run_);
    }
    if (const auto ended = run_->program->ended(); ended) {
      if (!ended->ok()) return *ended;
      return true;
    }
    if (input_ended_) return false;
    // Others go on writing; what is ours was read when nothing is left there.
    int left = 0;
    return ::ioctl(fd(), FIONREAD, &left) != 0 || left == 0;
  }

 private:
  const std::shared_ptr<SharedProgram> shared_;
  const std::shared_ptr<Run> run_;
  bool has_finished_ = false;
  bool input_ended_ = false;
};

class Exec final : public Device {
 public:
  Exec(const std::string& command, Clock& clock)
      : shared_(std::make_shared<SharedProgram>(command)), clock_(clock) {}

  DeviceInfo Describe() override {
    DeviceInfo info;
    info.description = absl::StrCat("program: ", shared_->command());
    info.source_formats = {kByteStream};
    info.sink_formats = {kByteStream};
    return info;
  }
  absl::StatusOr<std::unique_ptr<Source>> StartSource(
      const std::string& format, FrameTaker& taker) override {
    if (auto status = CheckByteFormat(format); !status.ok()) return status;
    auto run = shared_->Use(SharedProgram::Way::kReads);
    if (!run.ok()) return run.status();
    return std::make_unique<ByteSource>(
        std::make_unique<ProgramInput>(shared_, *run), taker, clock_,
        ByteSource::Options{});
  }
  absl::StatusOr<std::unique_ptr<Sink>> StartSink(
      const std::string& format) override {
    if (auto status = CheckByteFormat(format); !status.ok()) return status;
    auto run = shared_->Use(SharedProgram::Way::kWrites);
    if (!run.ok()) return run.status();
    return std::make_unique<ByteSink>(
        std::make_unique<ProgramOutput>(shared_, *run));
  }

 private:
  const std::shared_ptr<SharedProgram> shared_;
  Clock& clock_;
};

absl::StatusOr<std::unique_ptr<Device>> Make(const std::string& argument,
                                             Clock& clock) {
  if (absl::StripAsciiWhitespace(argument).empty()) {
    return absl::InvalidArgumentError("exec: names no command");
  }
  if (argument.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("exec: a command has no zero bytes");
  }
  return std::make_unique<Exec>(argument, clock);
}

const RegisterKind kExec{
    {"exec", "exec:COMMAND",
     "a program's standard output and input, run by /bin/sh while it has "
     "users",
     Make}};

}  // namespace
}  // namespace tripwire::periph

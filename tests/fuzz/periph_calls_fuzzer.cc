// SPDX-License-Identifier: BSD-3-Clause
// The calls of tw-periphd (service "periph") in the hands of users who say what
// they like: calls of every kind, right, nearly right and nonsense, in sessions
// that come and go. Each is answered once, in words that others can read;
// nobody sees or changes what is not offered to him; a disk holds what was
// written to it, and nothing else is touched.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nic/base/fd.h"
#include "periph/proto/messages.h"
#include "periph/service/control_service.h"
#include "tests/fuzz/bytes.h"

using namespace tripwire;          // NOLINT: a fuzzer's main file
using namespace tripwire::periph;  // NOLINT

namespace {

using fuzz::Require;
using Io = proto::DiskIo;

constexpr size_t kDiskBytes = 16384;
constexpr size_t kSessions = 3;

bool IsOneLine(const std::string& text) {
  return std::none_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < ' ';
  });
}

class Session final : public rpc::ServerSession {
 public:
  Session(uint64_t id, std::string peer) : id_(id), peer_(std::move(peer)) {}
  uint64_t id() const override { return id_; }
  const std::string& peer() const override { return peer_; }
  bool connected() const override { return true; }
  void Notify(rpc::Bytes message,
              std::function<void(absl::Status)> done) override {
    proto::DeviceEvent event;
    Require(
        event.ParseFromArray(message.data(), static_cast<int>(message.size())),
        "events can be read");
    Require(peer_ == "friend" || event.device() != "private",
            "nobody hears of what is not for him");
    done(absl::OkStatus());
  }
  void Expel(const std::string&) override {}

 private:
  const uint64_t id_;
  const std::string peer_;
};

// What was answered to one call.
struct Answer {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_there = false;
  proto::Reply reply;
  std::vector<uint8_t> bulk;
};

class Call final : public rpc::CallImpl {
 public:
  Call(std::shared_ptr<rpc::ServerSession> session,
       std::vector<uint8_t> request, std::vector<uint8_t> bulk, size_t capacity,
       std::shared_ptr<Answer> answer)
      : session_(std::move(session)),
        request_(std::move(request)),
        bulk_(std::move(bulk)),
        capacity_(capacity),
        answer_(std::move(answer)) {}
  ~Call() override {
    const std::lock_guard lock(answer_->mutex);
    Require(answer_->is_there, "every call is answered");
  }
  rpc::Bytes request() const override { return request_; }
  std::span<const uint8_t> bulk_request() const override { return bulk_; }
  size_t bulk_reply_capacity() const override { return capacity_; }
  rpc::BulkBuffer AllocateBulk(size_t bytes) override {
    Require(bytes <= capacity_, "an answer fits its room");
    const auto memory = std::make_shared<std::vector<uint8_t>>(bytes);
    return {memory->data(), bytes, [memory] {}};
  }
  const std::shared_ptr<rpc::ServerSession>& session() const override {
    return session_;
  }
  uint32_t slot() const override { return 0; }
  uint64_t sequence() const override { return 0; }
  bool cancelled() const override { return false; }
  void OnCancel(std::function<void()>) override {}
  void Reply(rpc::Bytes message, rpc::BulkBuffer bulk, size_t bulk_bytes,
             bool) override {
    Require(message.size() <= kMaxCallBytes, "answers are no longer than said");
    Require(bulk_bytes <= capacity_ && bulk_bytes <= bulk.capacity(),
            "an answer fits its room");
    const std::lock_guard lock(answer_->mutex);
    Require(!answer_->is_there, "a call is answered once");
    Require(answer_->reply.ParseFromArray(message.data(),
                                          static_cast<int>(message.size())),
            "an answer can be read");
    if (bulk_bytes > 0)
      answer_->bulk.assign(bulk.data(), bulk.data() + bulk_bytes);
    answer_->is_there = true;
    answer_->changed.notify_all();
  }

 private:
  const std::shared_ptr<rpc::ServerSession> session_;
  const std::vector<uint8_t> request_, bulk_;
  const size_t capacity_;
  const std::shared_ptr<Answer> answer_;
};

// An image, and what must be in it; a byte that may be anything is nothing.
struct Image {
  Image() : fd(::memfd_create("image", MFD_CLOEXEC)) {
    Require(::ftruncate(fd.get(), kDiskBytes) == 0, "there is memory");
  }
  std::string spec() const {
    return absl::StrCat("blk:/proc/self/fd/", fd.get());
  }
  bool Has(uint64_t offset, uint64_t length) const {
    return offset <= kDiskBytes && length <= kDiskBytes - offset;
  }
  void Set(uint64_t offset, uint64_t length, std::optional<uint8_t> byte) {
    std::fill_n(content.begin() + static_cast<ptrdiff_t>(offset), length, byte);
  }
  bool Holds(uint64_t offset, const std::vector<uint8_t>& bytes) const {
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (content[offset + i].value_or(bytes[i]) != bytes[i]) return false;
    }
    return true;
  }
  void Check() const {
    std::vector<uint8_t> all(kDiskBytes);
    Require(::pread(fd.get(), all.data(), all.size(), 0) == kDiskBytes &&
                Holds(0, all),
            "a disk holds what was written to it");
  }

  UniqueFd fd;
  std::vector<std::optional<uint8_t>> content =
      std::vector<std::optional<uint8_t>>(kDiskBytes, uint8_t{0});
};

class Run {
 public:
  explicit Run(fuzz::Script& script)
      : script_(script), registry_(Devices(), [this] { presence_.Nudge(); }) {
    presence_.SetRegistry(registry_);
    control_.emplace(
        registry_, presence_,
        [](const std::string&, const Asker&) {
          return std::vector<proto::StreamStat>(1);
        },
        MakeDiskService(registry_, clock_, {.max_disks = 3, .threads = 2}));
    callbacks_ = control_->Callbacks();
  }
  void Steps() {
    for (int i = 0; i < 100 && !script_.ended(); ++i) Step();
    for (size_t i = 0; i < kSessions; ++i) Close(i);
    presence_.Stop();
    Require(control_->session_count() == 0, "sessions end");
    control_.reset();
    for (const auto& device : registry_.devices()) {
      Require(device->Describe().users().empty(), "openings end");
    }
    for (const Image& image : images_) image.Check();
  }

 private:
  std::vector<DeviceConfig> Devices() {
    std::vector<DeviceConfig> devices;
    const auto add = [&](const char* name, const std::string& spec,
                         AccessRules access) {
      auto device = MakeDevice(spec, clock_);
      Require(device.ok(), "a device can be made");
      devices.push_back({name, spec, *std::move(device), std::move(access)});
    };
    add("cam", "pattern:bytes=64", {});
    add("disk", images_[0].spec(), {});
    add("fixed", images_[1].spec(), {.read_only = true});
    add("private", images_[2].spec(), {.nodes = {"friend"}});
    return devices;
  }

  void Step() {
    const uint8_t choice = script_.Take();
    const size_t who = choice / 8 % kSessions;
    if (choice % 8 == 0) return Close(who);
    if (choice % 8 == 1 || sessions_[who] == nullptr) return Open(who);
    std::vector<uint8_t> request;
    if (choice % 8 == 2) {
      request = script_.TakeBytes(script_.Take());
    } else {
      const proto::Request made = choice % 8 < 6 ? MakeIo() : MakeOther();
      request.resize(made.ByteSizeLong());
      made.SerializeToArray(request.data(), static_cast<int>(request.size()));
      if (choice >= 224 && !request.empty())
        request[script_.Take() % request.size()] ^= script_.Take();
    }
    Serve(who, std::move(request));
  }

  // ---------------------------------------------------------------- sessions
  void Open(size_t who) {
    Close(who);
    const char* const kPeers[] = {"friend", "stranger"};
    const auto program = script_.TakeBytes(script_.Take() % 64);
    std::vector<uint8_t> greeting(program);
    std::string peer(program.begin(), program.end());
    if (who < 2) {
      proto::Greeting said;
      said.set_user(script_.Take() % 2);
      said.set_program(peer);
      peer = kPeers[who];
      greeting.resize(said.ByteSizeLong());
      said.SerializeToArray(greeting.data(), static_cast<int>(greeting.size()));
    }
    auto session = std::make_shared<Session>(++last_id_, peer);
    if (!callbacks_.open(session, greeting).ok()) return;
    sessions_[who] = std::move(session);
  }
  void Close(size_t who) {
    if (sessions_[who] == nullptr) return;
    callbacks_.close(sessions_[who]);
    sessions_[who].reset();
    std::erase_if(open_,
                  [who](const auto& one) { return one.first.first == who; });
  }

  // ------------------------------------------------------------------- calls
  std::string Name() {
    const char* const kNames[] = {"cam", "disk", "fixed", "private"};
    const uint8_t choice = script_.Take();
    if (choice < 224) return kNames[choice % 4];
    const auto bytes = script_.TakeBytes(choice % 32);
    return {bytes.begin(), bytes.end()};
  }
  uint64_t Number(uint64_t most) {
    const uint8_t choice = script_.Take();
    return choice < 224 ? script_.Take<uint16_t>() % (most + 1)
                        : script_.Take<uint64_t>();
  }
  proto::Request MakeIo() {
    proto::Request request;
    Io& io = *request.mutable_disk_io();
    io.set_disk(script_.Take() % 4);
    const uint8_t what = script_.Take();
    io.set_operation(static_cast<Io::Operation>(what % 7));
    io.set_durable(what >= 128);
    io.set_may_unmap(what >= 192);
    io.set_offset(Number(kDiskBytes));
    io.set_length(Number(kDiskBytes / 4));
    return request;
  }
  proto::Request MakeOther() {
    proto::Request request;
    switch (script_.Take() % 9) {
      case 0:
      case 1: {
        proto::DiskOpen& open = *request.mutable_disk_open();
        open.set_device(Name());
        const uint8_t how = script_.Take();
        open.set_disk(how % 4);
        open.set_read_only(how >= 192);
        open.set_exclusive(how % 32 >= 16);
        break;
      }
      case 2:
        request.mutable_disk_close()->set_disk(script_.Take() % 4);
        break;
      case 3:
        request.mutable_list();
        break;
      case 4:
        request.mutable_info()->set_device(Name());
        break;
      case 5:
        request.mutable_controls()->set_device(Name());
        break;
      case 6:
        request.mutable_set_control()->set_device(Name());
        request.mutable_set_control()->set_name(script_.Take() < 128 ? "checked"
                                                                     : Name());
        request.mutable_set_control()->set_value(Name());
        break;
      case 7:
        request.mutable_stat()->set_device(Name());
        break;
      case 8:
        request.mutable_watch();
    }
    return request;
  }

  void Serve(size_t who, std::vector<uint8_t> request) {
    proto::Request read;
    const bool is_request =
        read.ParseFromArray(request.data(), static_cast<int>(request.size()));
    if (!is_request) read.Clear();
    const uint8_t choice = script_.Take();
    // As long as was said, as a rule.
    const uint64_t said = std::min<uint64_t>(read.disk_io().length(), 1 << 16);
    const uint64_t room = choice < 224 ? said : script_.Take<uint16_t>();
    std::vector<uint8_t> bulk;
    if (read.disk_io().operation() == Io::WRITE) bulk.assign(room, choice);
    const bool goes = choice % 16 == 15;

    const auto answer = std::make_shared<Answer>();
    const uint64_t malformed = control_->malformed();
    callbacks_.call(rpc::Call(
        std::make_shared<Call>(sessions_[who], std::move(request), bulk,
                               static_cast<size_t>(room), answer)));
    if (goes) callbacks_.close(sessions_[who]);
    std::unique_lock lock(answer->mutex);
    answer->changed.wait(lock, [&] { return answer->is_there; });
    Require(control_->malformed() == malformed + !is_request,
            "what is no call is counted");
    Require(answer->reply.code() >= 0 && answer->reply.code() <= 16,
            "an answer has a code of those there are");
    Require(IsOneLine(answer->reply.error()), "an error is one line");
    Judge(who, read, bulk, *answer);
    if (goes) Close(who);
  }

  // -------------------------------------------------------- what must be true
  void Judge(size_t who, const proto::Request& request,
             const std::vector<uint8_t>& bulk, const Answer& answer) {
    const bool is_ok = answer.reply.code() == 0;
    const bool is_friend = sessions_[who]->peer() == "friend";
    for (const std::string& device :
         {request.info().device(), request.controls().device(),
          request.set_control().device(), request.stat().device(),
          request.disk_open().device()}) {
      Require(!is_ok || is_friend || device != "private",
              "nobody may use what is not for him");
    }
    for (const proto::DeviceInfo& device : answer.reply.list().devices()) {
      Require(is_friend || device.name() != "private",
              "nobody sees what is not for him");
    }
    switch (request.call_case()) {
      case proto::Request::kDiskOpen:
        if (is_ok) Opened(who, request.disk_open(), answer.reply.disk_opened());
        return;
      case proto::Request::kDiskClose:
        return Require(
            open_.erase({who, request.disk_close().disk()}) == (is_ok ? 1 : 0),
            "what is open can be closed, and nothing else");
      case proto::Request::kDiskIo:
        return JudgeIo(who, request.disk_io(), bulk, answer);
      case proto::Request::CALL_NOT_SET:
        return Require(!is_ok, "what is no call is refused");
      default:
        return;
    }
  }
  void Opened(size_t who, const proto::DiskOpen& asked,
              const proto::DiskOpened& told) {
    Require(asked.disk() != 0 && told.disk() == asked.disk() &&
                told.size_bytes() == kDiskBytes,
            "a disk is what was asked for");
    Require(
        told.read_only() == (asked.read_only() || asked.device() == "fixed"),
        "who may only read is told so");
    Image* const image = asked.device() == "disk"    ? &images_[0]
                         : asked.device() == "fixed" ? &images_[1]
                                                     : &images_[2];
    Require(
        open_.insert({{who, asked.disk()}, {image, told.read_only()}}).second,
        "a number names one disk");
  }
  void JudgeIo(size_t who, const Io& io, const std::vector<uint8_t>& bulk,
               const Answer& answer) {
    const auto code = static_cast<absl::StatusCode>(answer.reply.code());
    const auto open = open_.find({who, io.disk()});
    if (open == open_.end()) {
      return Require(code == absl::StatusCode::kNotFound,
                     "only what is open is read and written");
    }
    if (code != absl::StatusCode::kOk) {
      return Require(code == absl::StatusCode::kInvalidArgument ||
                         code == absl::StatusCode::kOutOfRange ||
                         code == absl::StatusCode::kPermissionDenied,
                     "the disk itself does not fail");
    }
    const auto& [image, is_read_only] = open->second;
    if (io.operation() == Io::FLUSH) return;
    Require(image->Has(io.offset(), io.length()),
            "there is nothing beyond the end");
    if (io.operation() == Io::READ) {
      return Require(answer.bulk.size() == io.length() &&
                         image->Holds(io.offset(), answer.bulk),
                     "what is read is what was written");
    }
    Require(!is_read_only, "who may only read changes nothing");
    if (io.operation() == Io::WRITE) {
      Require(bulk.size() == io.length(), "all is written, or nothing");
      if (!bulk.empty()) image->Set(io.offset(), io.length(), bulk[0]);
    } else if (io.operation() == Io::WRITE_ZEROES) {
      image->Set(io.offset(), io.length(), uint8_t{0});
    } else {
      Require(io.operation() == Io::DISCARD, "no other operation succeeds");
      image->Set(io.offset(), io.length(), std::nullopt);
    }
  }

  fuzz::Script& script_;
  SystemClock clock_;
  Image images_[3];
  PresenceWatch presence_;
  Registry registry_;
  std::optional<ControlService> control_;
  rpc::Server::Callbacks callbacks_;
  uint64_t last_id_ = 0;
  std::shared_ptr<Session> sessions_[kSessions];
  // By session and number: which, and whether it is open read-only.
  std::map<std::pair<size_t, uint32_t>, std::pair<Image*, bool>> open_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Script script(data, size);
  Run(script).Steps();
  return 0;
}

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_STREAM_H_
#define TRIPWIRE_PERIPH_SERVICE_STREAM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "nic/api/context.h"
#include "periph/proto/messages.h"
#include "periph/service/registry.h"

namespace tripwire::periph {

// What a stream is made of at the service's side.
struct StreamPlace {
  Context* context = nullptr;
  LinkId link;
  uint64_t cookie = 0;  // of its tripwires' events
  // Has the event loop end the stream and close its link. Any thread.
  std::function<void(uint64_t cookie)> drop;
};

// One open stream, on its link. The event loop calls it; nothing here blocks.
class Stream {
 public:
  Stream(StreamPlace place, ServedDevice& device, Opening opening, const proto::Open& open,
         Asker asker)
      : place_(std::move(place)),
        device_(device),
        opening_(std::move(opening)),
        open_(open),
        asker_(std::move(asker)) {}
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;

  // False: the message makes no sense now; the link is to be closed.
  virtual bool OnMessage(const proto::StreamMessage& message) = 0;
  virtual void OnTripwire() = 0;
  // Now and then.
  virtual void OnTick() {}
  // The link is gone, or going: the device is left. Once, the last call.
  virtual void Close() = 0;
  // Nothing of it runs any more: it may be destroyed without waiting.
  virtual bool at_rest() const = 0;
  virtual proto::StreamStat Stat() = 0;

  ServedDevice& device() { return device_; }
  const Asker& asker() const { return asker_; }
  bool is_sink() const { return open_.sink(); }

 protected:
  void Tell(const proto::StreamMessage& message) {
    // If the link is down the event loop hears of it.
    (void)Send(*place_.context, place_.link, message);
  }
  void Refuse(const absl::Status& why) {
    proto::StreamMessage message;
    message.mutable_refused()->set_code(static_cast<int>(why.code()));
    message.mutable_refused()->set_error(Printable(std::string(why.message())));
    Tell(message);
    place_.drop(place_.cookie);
  }
  void TellEnd(const absl::Status& why) {
    proto::StreamMessage message;
    message.mutable_end()->set_code(static_cast<int>(why.code()));
    message.mutable_end()->set_error(Printable(std::string(why.message())));
    Tell(message);
  }
  void TellState(bool present, const absl::Status& why) {
    proto::StreamMessage message;
    message.mutable_state()->set_present(present);
    message.mutable_state()->set_why(Printable(std::string(why.message())));
    Tell(message);
  }
  proto::StreamStat StatBase() const {
    proto::StreamStat stat;
    stat.set_device(device_.name());
    stat.mutable_user()->set_node(asker_.node);
    stat.mutable_user()->set_program(asker_.program);
    stat.mutable_user()->set_what(open_.sink() ? "sink" : "source");
    stat.mutable_user()->set_user(asker_.user);
    return stat;
  }

  const StreamPlace place_;
  ServedDevice& device_;
  Opening opening_;
  const proto::Open open_;
  const Asker asker_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_STREAM_H_

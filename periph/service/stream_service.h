// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_STREAM_SERVICE_H_
#define TRIPWIRE_PERIPH_SERVICE_STREAM_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/api/context.h"
#include "periph/proto/messages.h"
#include "periph/service/hub.h"
#include "periph/service/registry.h"
#include "periph/service/stream.h"

namespace tripwire::periph {

struct StreamCounters {
  uint64_t open = 0;    // now
  uint64_t opened = 0;  // ever
  uint64_t refused = 0;
  uint64_t malformed = 0;  // messages that broke the rules; their links were closed
};

// Serves streams: links to the service "periph-stream", one stream each.
//
// One thread, the event loop, takes everything that comes; it never waits for a device
// or a peer. Frames are sent by the sources' own threads.
class StreamService {
 public:
  // ALREADY_EXISTS when this NIC offers streams already. Both must outlive it.
  static absl::StatusOr<std::unique_ptr<StreamService>> Start(Nic& nic, Registry& registry);
  ~StreamService();  // all streams end

  // Of the streams that `asker` may see; `device` empty: of all. Thread-safe.
  std::vector<proto::StreamStat> Stat(const std::string& device, const Asker& asker);
  StreamCounters counters();

 private:
  StreamService(Nic& nic, Registry& registry);
  void Run();
  void Handle(const Event& event);
  void OnConnectRequest(LinkId link);
  void OnMessages(LinkId link);
  void OnMessage(LinkId link, std::span<const uint8_t> bytes);
  void Open(LinkId link, const proto::Open& open);
  absl::StatusOr<std::shared_ptr<Stream>> MakeStream(LinkId link, const proto::Open& open);
  void Malformed(LinkId link, const char* what);
  void Pong(LinkId link, const proto::ClockPing& ping, uint64_t came_ns);
  // Ends what is on the link, and the link.
  void End(LinkId link);
  void DropPosted();
  void Tick();
  uint64_t NextTick();
  size_t Sinks() const;
  // Whether the link has a stream, or may yet open one.
  bool IsServed(LinkId link) const;
  std::shared_ptr<Stream> Find(LinkId link);

  Nic& nic_;
  Registry& registry_;
  const std::unique_ptr<Context> context_;
  HubSet hubs_;

  // The event loop's.
  struct Silent {
    LinkId link;
    uint64_t until_ns;  // then it should have said what it wants
  };
  std::list<Silent> silent_;
  std::list<std::shared_ptr<Stream>> leaving_;  // until they are at rest
  uint64_t next_cookie_ = 1;
  uint64_t next_tick_ns_ = 0;

  std::mutex mutex_;  // changed by the event loop alone, under it
  struct OpenStream {
    LinkId link;
    std::shared_ptr<Stream> stream;
  };
  std::map<uint64_t, OpenStream> streams_;  // by cookie
  std::map<LinkId, uint64_t> cookie_of_;
  std::vector<uint64_t> to_drop_;  // posted by any thread
  StreamCounters counters_;

  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_STREAM_SERVICE_H_

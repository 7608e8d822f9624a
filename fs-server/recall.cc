// SPDX-License-Identifier: BSD-3-Clause
//
// A reply waits here until nobody else holds a cached copy of what its call changed.
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <map>

#include "fs-server/file_server.h"
#include "fs-server/ops/context.h"
#include "nic/base/clock.h"

namespace tripwire::fs {
namespace {

struct ParkedReply {
  std::shared_ptr<rpc::Call> call;
  std::vector<uint8_t> message;
  rpc::BulkBuffer bulk;
  size_t bulk_bytes = 0;
  bool cache = true;
  std::atomic<int> waiting{0};  // recalls without an answer
  std::atomic<bool> sent{false};

  void Send() {
    if (sent.exchange(true)) return;
    call->Reply(message, std::move(bulk), bulk_bytes, cache);
    call.reset();
    message = {};
  }
};

struct Recalled {
  pb::Notice notice;
  uint64_t expires_ns = 0;
};

}  // namespace

void FileServer::Answer(std::shared_ptr<rpc::Call> call, const std::vector<uint8_t>& message,
                        rpc::BulkBuffer bulk, size_t bulk_bytes, bool cache, uint64_t session,
                        const std::vector<Change>& changes) {
  std::map<uint64_t, Recalled> recalled;  // by session
  if (!changes.empty()) {
    const uint64_t now_ns = SystemClock().NowNs();
    for (const Change& change : changes) {
      uint8_t what = 0;
      if ((change.what & (pb::RECALL_ATTR | pb::RECALL_DATA)) != 0) what |= LeaseTable::kInode;
      if ((change.what & pb::RECALL_NAMES) != 0) what |= LeaseTable::kNames;
      LeaseTable::Holders holders;
      leases_.Take(change.id, session, what, now_ns, &holders);
      for (const auto& holder : holders) {
        auto target = FindSession(holder.session);
        if (!target || target->exported == nullptr) continue;
        Recalled& entry = recalled[holder.session];
        entry.expires_ns = std::max(entry.expires_ns, holder.expires_ns);
        pb::Recall* recall = entry.notice.add_recalls();
        codec_.Encode(target->exported->id, change.id, recall->mutable_handle());
        uint32_t bits = 0;
        if ((holder.what & LeaseTable::kInode) != 0) {
          bits |= change.what & (pb::RECALL_ATTR | pb::RECALL_DATA);
        }
        if ((holder.what & LeaseTable::kNames) != 0) bits |= pb::RECALL_NAMES;
        recall->set_what(bits);
        recall->set_name(change.name);
        recall->set_deleted(change.deleted);
      }
    }
  }
  if (recalled.empty()) {
    call->Reply(message, std::move(bulk), bulk_bytes, cache);
    return;
  }
  recalls_.fetch_add(recalled.size(), std::memory_order_relaxed);
  auto parked = std::make_shared<ParkedReply>();
  parked->call = std::move(call);
  parked->message = message;
  parked->bulk = std::move(bulk);
  parked->bulk_bytes = bulk_bytes;
  parked->cache = cache;
  parked->waiting = static_cast<int>(recalled.size());
  uint64_t expires_ns = 0;
  for (auto& [id, entry] : recalled) expires_ns = std::max(expires_ns, entry.expires_ns);
  const uint64_t now_ns = SystemClock().NowNs();
  const auto left = std::chrono::nanoseconds(expires_ns > now_ns ? expires_ns - now_ns : 0);
  // A holder that does not answer (its link is down) loses its lease by time.
  timers_.RunAt(std::chrono::steady_clock::now() + left, [parked] { parked->Send(); });
  for (auto& [id, entry] : recalled) {
    auto target = FindSession(id);
    auto done = [parked](absl::Status) {
      if (parked->waiting.fetch_sub(1) == 1) parked->Send();
    };
    if (!target) {
      done(absl::OkStatus());
      continue;
    }
    const std::string bytes = entry.notice.SerializeAsString();
    target->rpc->Notify({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                        std::move(done));
  }
}

}  // namespace tripwire::fs

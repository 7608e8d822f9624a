// SPDX-License-Identifier: BSD-3-Clause
//
// A reply waits here until nobody else holds a cached copy of what its call changed.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>

#include "fs-server/file_server.h"
#include "fs-server/ops/context.h"
#include "nic/base/clock.h"

namespace tripwire::fs {
namespace {

constexpr size_t kRecallsPerNotice = 16;

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

// What each other session must be told of `changes`; its leases on them are gone.
struct FileServer::RecallSet {
  std::map<uint64_t, Recalled> by_session;
};

void FileServer::TakeHolders(uint64_t session, const std::vector<Change>& changes,
                             RecallSet* set) {
  if (changes.empty()) return;
  const uint64_t now_ns = SystemClock().NowNs();
  LeaseTable::Holders holders;
  for (const Change& change : changes) {
    uint8_t what = 0;
    if ((change.what & (pb::RECALL_ATTR | pb::RECALL_DATA)) != 0) what |= LeaseTable::kInode;
    if ((change.what & pb::RECALL_NAMES) != 0) what |= LeaseTable::kNames;
    holders.clear();
    leases_.Take(change.id, session, what, !change.name.empty(), now_ns, &holders);
    for (const auto& holder : holders) {
      auto target = FindSession(holder.session);
      if (!target || target->exported == nullptr) continue;
      Recalled& entry = set->by_session[holder.session];
      entry.expires_ns = std::max(entry.expires_ns, holder.expires_ns);
      pb::Recall* recall = entry.notice.add_recalls();
      codec_.Encode(target->exported->id, change.id, recall->mutable_handle());
      uint32_t bits = 0;
      if ((holder.what & LeaseTable::kInode) != 0) {
        bits |= change.what & (pb::RECALL_ATTR | pb::RECALL_DATA);
      }
      if ((holder.what & LeaseTable::kNames) != 0) bits |= pb::RECALL_NAMES;
      recall->set_what(bits);
      if (holder.every_name) continue;
      recall->set_name(change.name);
      recall->set_deleted(change.deleted);
    }
  }
  recalls_.fetch_add(set->by_session.size(), std::memory_order_relaxed);
}

void FileServer::Tell(uint64_t session, const pb::Notice& notice,
                      std::function<void(absl::Status)> done) {
  auto target = FindSession(session);
  if (!target) return done(absl::OkStatus());  // it ended, and its cache with it
  const std::string bytes = notice.SerializeAsString();
  target->rpc->Notify({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                      std::move(done));
}

void FileServer::Answer(std::shared_ptr<rpc::Call> call, const std::vector<uint8_t>& message,
                        rpc::BulkBuffer bulk, size_t bulk_bytes, bool cache, uint64_t session,
                        const std::vector<Change>& changes) {
  RecallSet set;
  TakeHolders(session, changes, &set);
  if (set.by_session.empty()) {
    call->Reply(message, std::move(bulk), bulk_bytes, cache);
    return;
  }
  auto parked = std::make_shared<ParkedReply>();
  parked->call = std::move(call);
  parked->message = message;
  parked->bulk = std::move(bulk);
  parked->bulk_bytes = bulk_bytes;
  parked->cache = cache;
  parked->waiting = static_cast<int>(set.by_session.size());
  uint64_t expires_ns = 0;
  for (auto& [id, entry] : set.by_session) expires_ns = std::max(expires_ns, entry.expires_ns);
  const uint64_t now_ns = SystemClock().NowNs();
  const auto left = std::chrono::nanoseconds(expires_ns > now_ns ? expires_ns - now_ns : 0);
  // A holder that does not answer (its link is down) loses its lease by time.
  timers_.RunAt(std::chrono::steady_clock::now() + left, [parked] { parked->Send(); });
  for (auto& [id, entry] : set.by_session) {
    Tell(id, entry.notice, [parked](absl::Status) {
      if (parked->waiting.fetch_sub(1) == 1) parked->Send();
    });
  }
}

bool FileServer::TakeAwaiting(const std::shared_ptr<AwaitingWrites>& awaiting) {
  std::lock_guard lock(awaiting_mutex_);
  return awaiting_writes_.erase(awaiting) > 0;
}

void FileServer::ServeAfterWrites(std::shared_ptr<rpc::Call> call, const FileId& id,
                                  const LeaseTable::Writer& writer) {
  auto awaiting = std::make_shared<AwaitingWrites>();
  awaiting->call = std::move(call);
  awaiting->id = id;
  awaiting->writer = writer.session;
  bool ends;
  {
    std::lock_guard lock(awaiting_mutex_);
    ends = stopping();
    if (!ends) awaiting_writes_.insert(awaiting);
  }
  if (ends) return Serve(std::move(awaiting->call));  // which now asks nobody
  const uint64_t now_ns = SystemClock().NowNs();
  const auto left =
      std::chrono::nanoseconds(writer.until_ns > now_ns ? writer.until_ns - now_ns : 0);
  timers_.RunAt(std::chrono::steady_clock::now() + left,
                [this, awaiting] { WritesAreOver(awaiting); });
  pb::Notice notice;
  if (auto target = FindSession(writer.session); target && target->exported != nullptr) {
    pb::Recall* recall = notice.add_recalls();
    codec_.Encode(target->exported->id, id, recall->mutable_handle());
    recall->set_what(pb::RECALL_WRITES);
    recalls_.fetch_add(1, std::memory_order_relaxed);
  }
  Tell(writer.session, notice, [this, awaiting](absl::Status) { WritesAreOver(awaiting); });
}

void FileServer::WritesAreOver(const std::shared_ptr<AwaitingWrites>& awaiting) {
  if (awaiting->over.exchange(true)) return;
  // For a lease's time no further write lease: whoever waited gets at the file.
  const uint64_t refused_ns = uint64_t{config_.lease_ms} * kMillisecond;
  leases_.EndWrites(awaiting->id, awaiting->writer, SystemClock().NowNs() + refused_ns);
  retries_.RunIn(std::chrono::milliseconds(0), [this, awaiting] {
    if (TakeAwaiting(awaiting)) Serve(std::move(awaiting->call));
  });
}

void FileServer::TellGrant(uint64_t session, uint64_t wait, uint64_t epoch, int error) {
  pb::Notice notice;
  pb::LockGrant* grant = notice.add_grants();
  grant->set_wait(wait);
  grant->set_epoch(epoch);
  grant->set_error(error);
  Tell(session, notice, [](absl::Status) {});
}

void FileServer::Recall(const std::vector<Change>& changes) {
  constexpr uint64_t kNobody = 0;
  // Few changes to a notice: it must fit a message.
  for (size_t at = 0; at < changes.size(); at += kRecallsPerNotice) {
    const size_t end = std::min(changes.size(), at + kRecallsPerNotice);
    RecallSet set;
    TakeHolders(kNobody, {changes.begin() + static_cast<long>(at),
                          changes.begin() + static_cast<long>(end)}, &set);
    for (auto& [id, entry] : set.by_session) Tell(id, entry.notice, [](absl::Status) {});
  }
}

void FileServer::RecallEverything() {
  leases_.Clear();
  pb::Notice notice;
  notice.set_everything(true);
  std::vector<uint64_t> ids;
  {
    std::shared_lock lock(sessions_mutex_);
    for (const auto& [id, session] : sessions_) ids.push_back(id);
  }
  for (const uint64_t id : ids) Tell(id, notice, [](absl::Status) {});
}

}  // namespace tripwire::fs

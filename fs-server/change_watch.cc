// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/change_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "fs-server/proto/fs.pb.h"

namespace tripwire::fs {
namespace {

// After a batch, so that a busy host costs at most so many wake-ups.
constexpr int kPauseMs = 5;

constexpr uint64_t kNames = FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO;
constexpr uint64_t kSelf = FAN_MODIFY | FAN_ATTRIB;

}  // namespace

absl::StatusOr<std::unique_ptr<ChangeWatch>> ChangeWatch::Start(
    std::vector<const InodeStore*> stores, Callback callback) {
  std::unique_ptr<ChangeWatch> watch(new ChangeWatch);
  watch->events_.reset(fanotify_init(
      FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID | FAN_REPORT_DFID_NAME, 0));
  watch->stop_.reset(eventfd(0, EFD_CLOEXEC));
  if (!watch->events_ || !watch->stop_) {
    return absl::ErrnoToStatus(errno, "cannot watch for changes (fanotify)");
  }
  for (const InodeStore* store : stores) {
    if (fanotify_mark(watch->events_.get(), FAN_MARK_ADD | FAN_MARK_FILESYSTEM,
                      kNames | kSelf | FAN_ONDIR, store->root_fd(), nullptr) != 0) {
      return absl::ErrnoToStatus(errno, "cannot watch the export for changes (fanotify)");
    }
  }
  watch->stores_ = std::move(stores);
  watch->callback_ = std::move(callback);
  watch->thread_ = std::thread([raw = watch.get()] { raw->Run(); });
  return watch;
}

ChangeWatch::~ChangeWatch() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(stop_.get(), &one, sizeof(one));
  thread_.join();
}

void ChangeWatch::Run() {
  std::vector<uint8_t> buffer(64 * 1024);
  std::vector<Event> batch;
  while (true) {
    pollfd ready[2] = {{stop_.get(), POLLIN, 0}, {events_.get(), POLLIN, 0}};
    if (poll(ready, 2, -1) < 0 && errno != EINTR) return;
    if (ready[0].revents != 0) return;
    bool lost = false;
    batch.clear();
    ssize_t n;
    while ((n = read(events_.get(), buffer.data(), buffer.size())) > 0) {
      Parse(buffer.data(), static_cast<size_t>(n), &batch, &lost);
    }
    if (!batch.empty() || lost) callback_(batch, lost);
    if (poll(ready, 1, kPauseMs) > 0) return;
  }
}

void ChangeWatch::Parse(const uint8_t* data, size_t size, std::vector<Event>* events,
                        bool* lost) const {
  const int self = getpid();
  for (size_t at = 0; at + sizeof(fanotify_event_metadata) <= size;) {
    fanotify_event_metadata head;
    std::memcpy(&head, data + at, sizeof(head));
    const size_t end = at + head.event_len;
    if (head.event_len < sizeof(head) || end > size) return;
    if ((head.mask & FAN_Q_OVERFLOW) != 0) *lost = true;
    size_t info = at + head.metadata_len;
    at = end;
    if (head.pid == self) continue;
    while (info + sizeof(fanotify_event_info_fid) + sizeof(file_handle) <= end) {
      fanotify_event_info_fid fid;
      std::memcpy(&fid, data + info, sizeof(fid));
      const uint8_t* handle = data + info + offsetof(fanotify_event_info_fid, handle);
      const uint8_t* info_end = data + info + fid.hdr.len;
      if (fid.hdr.len < sizeof(fid) || info_end > data + end) break;
      info += fid.hdr.len;
      file_handle fh;
      std::memcpy(&fh, handle, sizeof(fh));
      const uint8_t* bytes = handle + offsetof(file_handle, f_handle);
      if (fh.handle_bytes > static_cast<size_t>(info_end - bytes)) break;
      Event event;
      bool ours = false;
      for (const InodeStore* store : stores_) {
        ours = store->FromKernel(&fid.fsid, fh.handle_type, bytes, fh.handle_bytes, &event.id);
        if (ours) break;
      }
      if (!ours) continue;
      if (fid.hdr.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME && (head.mask & kNames) != 0) {
        const auto* name = reinterpret_cast<const char*>(bytes + fh.handle_bytes);
        event.name.assign(name, strnlen(name, static_cast<size_t>(
                                                  info_end - bytes - fh.handle_bytes)));
        event.what = pb::RECALL_ATTR | pb::RECALL_NAMES;
        event.deleted = (head.mask & (FAN_DELETE | FAN_MOVED_FROM)) != 0 &&
                        (head.mask & (FAN_CREATE | FAN_MOVED_TO)) == 0;
        events->push_back(std::move(event));
      } else if (fid.hdr.info_type == FAN_EVENT_INFO_TYPE_FID) {
        // Of a name event this is the child, whose link count or ctime changed.
        event.what = pb::RECALL_ATTR |
                     ((head.mask & FAN_MODIFY) != 0 ? static_cast<uint32_t>(pb::RECALL_DATA) : 0u);
        events->push_back(std::move(event));
      } else if ((head.mask & kSelf) != 0 && (head.mask & FAN_ONDIR) != 0) {
        event.what = pb::RECALL_ATTR;  // of the directory itself
        events->push_back(std::move(event));
      }
    }
  }
}

}  // namespace tripwire::fs

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_UNSTABLE_DATA_H_
#define TRIPWIRE_FUSE_CLIENT_UNSTABLE_DATA_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "fuse-client/mutex.h"
#include "fuse-client/node_table.h"
#include "fuse-client/request_buffers.h"

namespace tripwire::fuse {

// Data the server has accepted but may still lose in a crash. It is kept until a
// commit with the same boot verifier, and sent again when the verifier changed.
//
// Thread-safe.
//
// Invariants:
//  1. Segments of a file are in the order in which the server acknowledged them.
//  2. A segment leaves only when its data is durable, was cut off by a truncation,
//     or could not be sent again (then the file has an error to report).
class UnstableData {
 public:
  struct Segment {
    uint64_t sequence = 0;
    uint64_t verifier = 0;
    uint64_t offset = 0;
    size_t length = 0;
    size_t data_start = 0;  // within buffer
    RequestBuffer buffer;
    uint32_t uid = 0, gid = 0;
    const char* data() const { return buffer.get() + data_start; }
  };
  // Sends one segment again so that it is durable at once; returns an errno.
  using Resend = std::function<int(Node&, const Segment&)>;

  UnstableData(NodeTable* nodes, size_t most_bytes)
      : nodes_(nodes), most_bytes_(most_bytes) {}

  void Add(Node* node, Segment segment);
  // The file now ends at `size`, or has a hole there: what was there must not be
  // written again.
  void Discard(Node* node, uint64_t offset, uint64_t length);

  // All segments added up to now have a lower number than this.
  uint64_t Mark();
  // A commit of `node` (null: of all files on file system `fsid`) that began after
  // `mark` was taken succeeded with `verifier`: drops what is durable now, and sends
  // again what was written under another verifier. Returns the first error.
  int Committed(Node* node, uint64_t fsid, uint64_t mark, uint64_t verifier,
                const Resend& resend);
  // The server restarted and may have lost what was written under another verifier.
  void ServerRestarted(uint64_t verifier, const Resend& resend);

  // Data of `node` was lost although its writer was told that it was written.
  void Failed(Node* node, int error);
  // The error, once, that sending data of `node` again met while nobody waited.
  int TakeError(Node* node);

  bool Has(Node* node);
  size_t bytes();
  // A file with unstable data, for the committer; empty when there is none.
  NodeRef Any();
  // Blocks while more than the allowed amount is held.
  void WaitForRoom();
  enum class Work { kMuch, kOld, kStopped };
  // Blocks until there is `threshold` bytes of unstable data or the oldest is as
  // old as `age`, or until `Stop`.
  Work WaitForWork(size_t threshold, absl::Duration age);
  void Stop();

 private:
  struct File {
    NodeRef node;
    std::deque<Segment> segments;
  };
  using Files = std::map<Node*, File>;
  // What a commit that began after `mark` says of one file; the next one.
  Files::iterator Settle(Files::iterator it, uint64_t mark, uint64_t verifier,
                         std::vector<std::pair<NodeRef, Segment>>* lost,
                         std::vector<NodeRef>* done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // They are sent again without the lock.
  int ResendAll(std::vector<std::pair<NodeRef, Segment>> segments,
                const Resend& resend);

  NodeTable* const nodes_;
  const size_t most_bytes_;
  Mutex mu_;
  Files files_ ABSL_GUARDED_BY(mu_);
  std::map<Node*, std::pair<NodeRef, int>> errors_ ABSL_GUARDED_BY(mu_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mu_) = 1;
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time oldest_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_UNSTABLE_DATA_H_

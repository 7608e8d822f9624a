// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_REQUEST_BUFFERS_H_
#define TRIPWIRE_FUSE_CLIENT_REQUEST_BUFFERS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "fuse-client/mutex.h"

namespace tripwire::fuse {

class BufferPool;

// Returns memory to the pool it is from; without one, to malloc.
struct BufferDeleter {
  BufferPool* pool = nullptr;
  void operator()(char* p) const;
};
using RequestBuffer = std::unique_ptr<char, BufferDeleter>;

RequestBuffer MallocBuffer(size_t bytes);  // null when there is no memory

// What one request of the kernel's may need: 1 MiB of data and its headers.
inline constexpr size_t kRequestBytes = (size_t{1} << 20) + 4096;

// Buffers for the kernel's requests. Data of a large write stays in the buffer
// it came in while the server may look at it there, or until the server has made
// it durable, so a stream of writes needs a fresh buffer for each; were they fresh
// from the system too, its zeroing them page by page would cost as much as sending
// them. So they are carved from chunks (of memory shown to the server, as far as
// there is some; others ask for huge pages), and come back for the next use, the
// last one first.
//
// Thread-safe. Buffers must come back before the pool ends.
class BufferPool {
 public:
  explicit BufferPool(size_t buffer_bytes);  // rounded up to whole pages
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;

  // Memory that the server can read where it lies: buffers come from there first.
  // Stays the caller's, zero where it was not touched, and must outlive the pool's use.
  // REQUIRES: before other threads use the pool.
  void Show(std::span<uint8_t> shown);
  bool IsShown(const char* p) const {
    return p >= shown_begin_ && p < shown_begin_ + shown_bytes_;
  }

  size_t buffer_bytes() const { return buffer_bytes_; }
  RequestBuffer Take();  // null when there is no memory
  // Gives chunks nobody uses back to the system, but for `keep_bytes`.
  void Trim(size_t keep_bytes);
  size_t held_bytes();  // taken from the system

 private:
  friend struct BufferDeleter;
  struct Chunk {
    char* base = nullptr;
    size_t used = 0;  // buffers out
    bool is_shown = false;
    bool Holds(const char* p) const {
      return p >= base && p < base + kChunkBytes;
    }
  };
  static constexpr size_t kHugePage = size_t{2} << 20;
  static constexpr size_t kChunkBytes = 16 * kHugePage;

  bool Grow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static bool MapChunk(Chunk* chunk);
  Chunk& ChunkOf(const char* p) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Give(char* p);

  const size_t buffer_bytes_;
  const char* shown_begin_ = nullptr;
  size_t shown_bytes_ = 0;
  Mutex mu_;
  std::vector<Chunk> chunks_ ABSL_GUARDED_BY(mu_);  // by address
  std::vector<char*> spare_ ABSL_GUARDED_BY(mu_);
  std::vector<char*> shown_ ABSL_GUARDED_BY(mu_);  // where a chunk could be
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_REQUEST_BUFFERS_H_

// SPDX-License-Identifier: BSD-3-Clause
// Listing directories.
//
// A listing is fetched in batches much larger than the page the kernel asks for at
// a time, and handed out from the open directory. Opening one costs no call.
// Listings are not cached by the kernel (FOPEN_CACHE_DIR): with leases of a second
// it would hardly ever be asked for one again in time.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "fs-server/proto/dir_stream.h"
#include "fuse-client/mutex.h"
#include "fuse-client/op.h"

namespace tripwire::fuse {
namespace {

// Offsets of the two entries the server does not list. Offset 0 is before ".";
// these are after it and after "..". No file system counts so far.
constexpr off_t kAfterDot = 0x7ffffffffffffffd;
constexpr off_t kAfterDotDot = 0x7ffffffffffffffe;

constexpr size_t kFirstBatch = 32 << 10;
constexpr size_t kNextBatch = 512 << 10;

// Offset in the listing from the server's cookie: after ".." the server's first.
uint64_t CookieOf(off_t offset) {
  return offset == 0 || offset == kAfterDot || offset == kAfterDotDot
             ? 0
             : static_cast<uint64_t>(offset);
}

}  // namespace

// An open directory: the batch that was fetched last, and where we are in it.
struct OpenDirectory {
  Mutex mu;
  bool plus = false;
  bool valid = false;
  bool eof = false;
  uint64_t fetched_ns = 0;
  uint64_t recalls_before = 0;
  uint64_t xattrs_set_before = 0;
  uint32_t attr_cache_ms = 0;
  uint32_t name_cache_ms = 0;
  uint64_t next_cookie = 0;  // of `next`: what the kernel must ask for to go on
  size_t next = 0;           // first entry not handed out yet
  std::vector<pb::DirEntry> entries;
  int batches = 0;
  ListedNames names;

  // Whether what comes next is here. The kernel asks for attributes with one page and
  // not with the next, as it thinks fit; and after the last there is nothing to tell.
  bool Has(bool with_attributes) const {
    return next < entries.size() ? plus || !with_attributes : eof;
  }
};

// Collects entries in the kernel's format.
class ListingBuffer {
 public:
  ListingBuffer(fuse_req_t req, size_t size) : req_(req), buffer_(size) {}
  bool Add(const char* name, const struct stat& st, off_t next) {
    return Grow(fuse_add_direntry(req_, At(), Room(), name, &st, next));
  }
  bool AddPlus(const char* name, const fuse_entry_param& entry, off_t next) {
    return Grow(fuse_add_direntry_plus(req_, At(), Room(), name, &entry, next));
  }
  int Reply() { return fuse_reply_buf(req_, buffer_.data(), used_); }
  bool empty() const { return used_ == 0; }

 private:
  char* At() { return buffer_.data() + used_; }
  size_t Room() const { return buffer_.size() - used_; }
  bool Grow(size_t needed) {
    if (needed > Room()) return false;
    used_ += needed;
    return true;
  }
  fuse_req_t req_;
  std::vector<char> buffer_;
  size_t used_ = 0;
};

void FileSystem::OpenDir(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  if (!options_.default_permissions) {
    Op op(*this, req, Op::Check::kCaller);
    pb::Access* call = op.call.mutable_access();
    op.Name(node, call->mutable_handle());
    call->set_mask(pb::ACCESS_READ);
    if (const int error = op.Call()) {
      fuse_reply_err(req, error);
      return;
    }
  }
  auto* dir = new OpenDirectory;
  fi->fh = reinterpret_cast<uint64_t>(dir);
  if (fuse_reply_open(req, fi) != 0) delete dir;
}

void FileSystem::ReleaseDir(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  delete reinterpret_cast<OpenDirectory*>(fi->fh);
  fuse_reply_err(req, 0);
}

// The entries of a reply; no if it is malformed.
bool FileSystem::ReadEntries(const Op& op, std::vector<pb::DirEntry>* entries) {
  fs::DirStreamReader reader(op.frame.bulk().data(), op.frame.bulk().size());
  pb::DirEntry entry;
  while (reader.Next(&entry)) {
    const std::string& name = entry.name();
    if (name.empty() || name.size() > 255 || name == "." || name == ".." ||
        name.find('/') != std::string::npos || name.find('\0') != std::string::npos) {
      return false;
    }
    entries->push_back(std::move(entry));
  }
  return !reader.malformed();
}

int FileSystem::FetchListing(fuse_req_t req, Node* node, OpenDirectory* dir,
                             uint64_t cookie, bool plus) {
  if (cookie == 0) {
    BeginNames(node, &dir->names);
  } else if (cookie != dir->next_cookie) {
    dir->names = {};  // a gap
  }
  Op op(*this, req, Op::Check::kCaller);
  pb::ReadDir* call = op.call.mutable_readdir();
  op.Name(node, call->mutable_object()->mutable_handle());
  call->set_cookie(cookie);
  call->set_plus(plus);
  call->set_xattrs(plus && XattrsAreWanted());
  op.frame.bulk_reply_capacity = dir->batches++ == 0 ? kFirstBatch : kNextBatch;
  const int error = op.Call();
  dir->valid = false;
  dir->entries.clear();
  dir->next = 0;
  dir->next_cookie = cookie;
  if (error == ESTALE || error == ENOENT) {  // removed while it is open
    dir->valid = dir->eof = true;
    return 0;
  }
  if (error != 0) return error;
  if (!ReadEntries(op, &dir->entries)) return EIO;
  CollectNames(op, node, dir->entries, &dir->names);
  dir->plus = plus;
  dir->valid = true;
  dir->eof = op.reply.readdir().eof() || dir->entries.empty();
  dir->fetched_ns = op.start_ns;
  dir->recalls_before = op.recalls_before;
  dir->xattrs_set_before = op.xattrs_set_before;
  dir->attr_cache_ms = op.reply.readdir().attr_cache_ms();
  dir->name_cache_ms = op.reply.name_cache_ms();
  return 0;
}

// Fills one entry of a listing; with attributes when it is a readdirplus one, which
// counts a lookup of the entry's node. Returns its node, if so.
Node* FileSystem::PlusEntry(const OpenDirectory& dir, Node* node,
                            const pb::DirEntry& listed, fuse_entry_param* entry) {
  if (!dir.plus || listed.handle().empty() || listed.handle().size() > 64 ||
      (listed.attr().mode() & S_IFMT) == 0) {
    entry->attr.st_ino = listed.ino();
    entry->attr.st_mode = DTTOIF(listed.type());
    return nullptr;
  }
  Node* child = nodes_.Enter({listed.handle(), listed.attr().ino(),
                              listed.attr().fsid(), listed.attr().mode() & S_IFMT},
                             node, listed.name());
  FillStat(listed.attr(), &entry->attr);
  if (!child) return nullptr;
  if (child->mutations.load() > 0 || child->mutated_ns.load() >= dir.fetched_ns) {
    // Changed by us since it was listed: the kernel shall ask.
    nodes_.Forget(child->id, 1);
    return nullptr;
  }
  entry->ino = child->id;
  entry->generation = child->generation;
  const auto left = [&](uint32_t ms) { return TrustLeft(dir.fetched_ns, ms); };
  const auto& fixed = child->type == S_IFDIR ? options_.dir_timeout_s
                                             : options_.file_timeout_s;
  entry->attr_timeout = fixed ? *fixed : left(dir.attr_cache_ms);
  entry->entry_timeout =
      options_.dir_timeout_s ? *options_.dir_timeout_s : left(dir.name_cache_ms);
  if (recalls_.RecalledSince(dir.recalls_before, listed.handle())) {
    entry->attr_timeout = 0;
  }
  child->attributes_given.store(true);
  if (listed.attr().no_xattrs()) {
    NoteLacks({dir.fetched_ns, dir.recalls_before, dir.xattrs_set_before}, child, true,
              dir.attr_cache_ms);
  }
  return child;
}

// Fills `buffer` with what comes after `offset`; returns the nodes that got a lookup
// counted. REQUIRES: a batch that begins there.
bool FileSystem::FillListing(OpenDirectory* dir, Node* node, off_t offset, bool plus,
                             ListingBuffer* buffer, std::vector<uint64_t>* entered) {
  fuse_entry_param dot = {};
  dot.attr.st_ino = node->ino;
  dot.attr.st_mode = S_IFDIR;
  const auto add = [&](const char* name, const fuse_entry_param& entry, off_t next) {
    return plus ? buffer->AddPlus(name, entry, next)
                : buffer->Add(name, entry.attr, next);
  };
  if (offset == 0 && !add(".", dot, kAfterDot)) return false;
  if ((offset == 0 || offset == kAfterDot) && !add("..", dot, kAfterDotDot)) {
    return false;
  }
  const bool names_recalled =
      recalls_.RecalledSince(dir->recalls_before, node->Handle());
  for (; dir->next < dir->entries.size(); ++dir->next) {
    const pb::DirEntry& listed = dir->entries[dir->next];
    fuse_entry_param entry = {};
    Node* child = plus ? PlusEntry(*dir, node, listed, &entry) : nullptr;
    if (!plus) {
      entry.attr.st_ino = listed.ino();
      entry.attr.st_mode = DTTOIF(listed.type());
    }
    if (names_recalled) entry.entry_timeout = 0;
    if (!add(listed.name().c_str(), entry, static_cast<off_t>(listed.cookie()))) {
      if (child) nodes_.Forget(child->id, 1);
      return false;
    }
    if (child) entered->push_back(child->id);
    dir->next_cookie = listed.cookie();
  }
  return true;
}

void FileSystem::ReadDir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                         fuse_file_info* fi, bool plus) {
  Node* node = nodes_.Get(ino);
  auto* dir = reinterpret_cast<OpenDirectory*>(fi->fh);
  ListingBuffer buffer(req, size);
  const uint64_t cookie = CookieOf(offset);
  dir->mu.Lock();
  if (offset == 0) dir->valid = false;  // rewinddir(3) must see what is new
  const bool have = dir->valid && dir->next_cookie == cookie && dir->Has(plus);
  if (!have) {
    if (const int error = FetchListing(req, node, dir, cookie, plus)) {
      dir->mu.Unlock();
      fuse_reply_err(req, error);
      return;
    }
  }
  std::vector<uint64_t> entered;
  int sent;
  {
    ReaderMutexLock gate(&recalls_.gate);
    const bool all = FillListing(dir, node, offset, plus, &buffer, &entered);
    dir->mu.Unlock();  // the answer may be followed by its release
    if (!all && buffer.empty()) {
      fuse_reply_err(req, EINVAL);
      return;
    }
    sent = buffer.Reply();
  }
  if (sent == 0) return;
  for (const uint64_t id : entered) nodes_.Forget(id, 1);
}

void FileSystem::FSyncDir(fuse_req_t req, fuse_ino_t ino, int data_only,
                          fuse_file_info*) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  fuse_reply_err(req, CommitNode(req, node, nullptr, data_only != 0));
}

}  // namespace tripwire::fuse

// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/name_map.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <utility>

namespace tripwire::fs {
namespace {

// One record: inode and directory (each as u64 file system, u16 type, u8 size and
// the bytes), u16 length of the name, the name. A torn last record is ignored.
void PutId(const FileId& id, std::string* out) {
  out->append(reinterpret_cast<const char*>(&id.fs), 8);
  out->append(reinterpret_cast<const char*>(&id.type), 2);
  out->push_back(static_cast<char>(id.size));
  out->append(reinterpret_cast<const char*>(id.bytes.data()), id.size);
}

class Reader {
 public:
  explicit Reader(std::string_view data) : data_(data) {}
  bool Bytes(void* out, size_t n) {
    if (n > data_.size()) return false;
    std::memcpy(out, data_.data(), n);
    data_.remove_prefix(n);
    return true;
  }
  bool Id(FileId* id) {
    return Bytes(&id->fs, 8) && Bytes(&id->type, 2) && Bytes(&id->size, 1) &&
           id->size <= FileId::kMaxBytes && Bytes(id->bytes.data(), id->size);
  }
  bool Name(std::string* name) {
    uint16_t size;
    if (!Bytes(&size, 2) || size > data_.size()) return false;
    name->assign(data_.data(), size);
    data_.remove_prefix(size);
    return true;
  }

 private:
  std::string_view data_;
};

std::string Record(const FileId& id, const FileId& dir, std::string_view name) {
  std::string out;
  PutId(id, &out);
  PutId(dir, &out);
  const auto size = static_cast<uint16_t>(name.size());
  out.append(reinterpret_cast<const char*>(&size), 2);
  out.append(name);
  return out;
}

std::string ReadAll(const std::string& file) {
  std::string all;
  UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return all;
  char buffer[65536];
  ssize_t n;
  while ((n = read(fd.get(), buffer, sizeof(buffer))) > 0) all.append(buffer, static_cast<size_t>(n));
  return all;
}

}  // namespace

void NameMap::Load() {
  if (loaded_) return;
  loaded_ = true;
  if (file_.empty()) return;
  const std::string all = ReadAll(file_);
  Reader reader(all);
  size_t records = 0;
  FileId id;
  Place place;
  while (reader.Id(&id) && reader.Id(&place.dir) && reader.Name(&place.name)) {
    ++records;
    if (place.name.empty()) {
      places_.erase(id);
    } else {
      places_[id] = place;
    }
    id = {};
    place = {};
  }
  log_.reset(open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  // Also cuts off a torn record, after which nothing could be read.
  if (!all.empty()) Rewrite();
}

void NameMap::Rewrite() {
  const std::string fresh = file_ + ".new";
  UniqueFd fd(open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return;
  std::string out;
  for (const auto& [id, place] : places_) {
    out += Record(id, place.dir, place.name);
    if (out.size() < 1 << 20) continue;
    if (write(fd.get(), out.data(), out.size()) != static_cast<ssize_t>(out.size())) return;
    out.clear();
  }
  if (write(fd.get(), out.data(), out.size()) != static_cast<ssize_t>(out.size())) return;
  if (rename(fresh.c_str(), file_.c_str()) == 0) log_ = std::move(fd);
}

void NameMap::Append(const FileId& id, const FileId& dir, std::string_view name) {
  if (!log_) return;
  const std::string record = Record(id, dir, name);
  // A failed write (disk full) only means that this handle does not outlive us.
  [[maybe_unused]] const ssize_t n = write(log_.get(), record.data(), record.size());
}

void NameMap::Put(const FileId& id, const FileId& dir, std::string_view name) {
  std::lock_guard lock(mutex_);
  Load();
  Place& place = places_[id];
  if (place.dir == dir && place.name == name) return;
  place.dir = dir;
  place.name = name;
  Append(id, dir, name);
}

std::optional<NameMap::Place> NameMap::Get(const FileId& id) {
  std::lock_guard lock(mutex_);
  Load();
  auto it = places_.find(id);
  if (it == places_.end()) return std::nullopt;
  return it->second;
}

void NameMap::Erase(const FileId& id) {
  std::lock_guard lock(mutex_);
  Load();
  if (places_.erase(id) > 0) Append(id, {}, {});
}

size_t NameMap::size() {
  std::lock_guard lock(mutex_);
  Load();
  return places_.size();
}

}  // namespace tripwire::fs

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_MAPPING_H_
#define TRIPWIRE_NIC_COMM_MAPPING_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <utility>

namespace tripwire {

// Anonymous memory, page-aligned, zero, and taken from the system only where
// it is touched. Throws std::bad_alloc when there is no address space left.
class Mapping {
 public:
  Mapping() = default;
  explicit Mapping(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<uint8_t*>(at);
  }
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      Unmap();
      data_ = std::exchange(other.data_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
  }
  ~Mapping() { Unmap(); }

  uint8_t* data() const { return data_; }
  size_t size() const { return bytes_; }
  std::span<uint8_t> span() const { return {data_, bytes_}; }

 private:
  void Unmap() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }

  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_COMM_MAPPING_H_

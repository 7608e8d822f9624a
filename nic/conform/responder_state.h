// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_RESPONDER_STATE_H_
#define TRIPWIRE_NIC_CONFORM_RESPONDER_STATE_H_

#include <atomic>
#include <memory>
#include <span>
#include <thread>

#include "nic/conform/responder.h"

namespace tripwire::conform {

struct Responder::ContextEntry {
  std::unique_ptr<Context> context;
};

// Exported memory: pages that are only taken when touched.
struct Responder::Memory {
  Memory(uint64_t length, uint8_t misalign);
  ~Memory();
  Memory(const Memory&) = delete;
  // As a program that shares words with peers does: whole aligned words.
  void Store(uint64_t offset, std::span<const uint8_t> data);
  Bytes Load(uint64_t offset, uint64_t length) const;

  uint32_t context = 0;
  std::span<uint8_t> bytes;
  Aperture aperture;

 private:
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
};

// An operation of the NIC's own, on memory that stays until the context ends.
struct Responder::Operation {
  uint32_t context = 0;
  Completion completion;
  uint64_t result = 0;
  Bytes data;
  bool is_read = false;
};

// Looks at exported words from a thread of its own while peers write them.
struct Responder::Observer {
  Observer(const Memory& watched, uint8_t kind, uint64_t first,
           uint64_t second);
  ~Observer() { Stop(); }
  void Stop();

  const Memory* memory;
  std::atomic<uint64_t> looks{0}, changes{0}, violations{0};

 private:
  void Look(uint8_t kind, const uint64_t* first, const uint64_t* second);
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

uint8_t ToldKind(EventKind kind);

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_RESPONDER_STATE_H_

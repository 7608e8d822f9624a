// SPDX-License-Identifier: BSD-3-Clause
// The operations a context issues on its links.
#include <algorithm>

#include "nic/api/context.h"
#include "nic/api/nic_impl.h"
#include "nic/base/wire_int.h"

namespace tripwire {
namespace {

// Of a list, so many leave at once: the peer takes the first while the others
// are prepared.
constexpr size_t kSentTogether = 32;

absl::Status Down() { return absl::UnavailableError("the link is down"); }

absl::Status Exhausted() {
  return absl::ResourceExhaustedError(
      "the context's operations under way are as much as it may have");
}

absl::Status Beyond() {
  return absl::OutOfRangeError("write beyond the peer's aperture");
}

bool InRange(uint64_t size, uint64_t offset, uint64_t length) {
  size = std::min(size, Le48::kMax);  // what a frame can name
  return offset <= size && length <= size - offset;
}

template <typename T>
uint64_t TotalBytes(std::span<const std::span<T>> parts) {
  uint64_t bytes = 0;
  for (const auto& part : parts) bytes += part.size();
  return bytes;
}

}  // namespace

absl::Status Context::Issue(LinkId link, Completion* completion,
                            uint64_t copied_bytes,
                            absl::FunctionRef<bool(Engine&)> operation) {
  auto lock = impl_.Lock();
  if (!Owns(link)) return Down();
  if (!impl_.engine().MayQueue(id_, copied_bytes)) {
    return Exhausted();
  }
  if (completion != nullptr) {
    completion->status.store(OpStatus::kPending, std::memory_order_relaxed);
  }
  if (!operation(impl_.engine())) return Down();
  impl_.driver().NoteWork();
  return absl::OkStatus();
}

absl::Status Context::Write(const RemoteAperture& to, uint64_t offset,
                            std::span<const uint8_t> data,
                            Completion* completion, WriteOrder order) {
  if (!InRange(to.name.length_bytes, offset, data.size())) {
    return Beyond();
  }
  if (completion == nullptr && order == WriteOrder::kOrdered) {
    auto lock = impl_.Lock();
    if (impl_.engine().WriteAtOnce(id_, to.link, to.name, offset, data)) {
      impl_.driver().NoteWork();
      return absl::OkStatus();
    }
  }
  const uint64_t copied = completion == nullptr ? data.size() : 0;
  return Issue(to.link, completion, copied, [&](Engine& engine) {
    return engine.Write(to.link, to.name, offset, data, completion,
                        {.is_unordered = order == WriteOrder::kUnordered});
  });
}

absl::Status Context::WriteMany(std::span<const WriteRequest> writes,
                                size_t* begun) {
  absl::Status status;
  size_t count = 0;
  {
    auto lock = impl_.Lock();
    Engine& engine = impl_.engine();
    Link* link = nullptr;
    size_t queued = 0;  // on it, and not sent
    for (; count < writes.size(); ++count) {
      const WriteRequest& write = writes[count];
      if (link == nullptr || link->id != write.to.link) {
        if (queued > 0) engine.Send(*link);
        queued = 0;
        link = engine.FindLink(write.to.link);
      }
      status = BeginWrite(link, write);
      if (!status.ok()) break;
      if (++queued < kSentTogether) continue;
      engine.Send(*link);
      queued = 0;
    }
    if (queued > 0) engine.Send(*link);
    impl_.driver().NoteWork();
  }
  if (begun != nullptr) *begun = count;
  return status;
}

// Queues it on the link that it names (null: there is none).
absl::Status Context::BeginWrite(Link* link, const WriteRequest& write) {
  Engine& engine = impl_.engine();
  if (!InRange(write.to.name.length_bytes, write.offset, write.data.size())) {
    return Beyond();
  }
  if (link == nullptr || link->context != id_ ||
      link->state != LinkState::kOpen) {
    return Down();
  }
  Completion* const completion = write.completion;
  if (!engine.MayQueue(id_, completion == nullptr ? write.data.size() : 0)) {
    return Exhausted();
  }
  if (completion != nullptr) {
    completion->status.store(OpStatus::kPending, std::memory_order_relaxed);
  }
  engine.QueueWrite(*link, write.to.name, write.offset, write.data, completion,
                    {.is_unordered = write.order == WriteOrder::kUnordered});
  return absl::OkStatus();
}

absl::Status Context::WriteGather(
    const RemoteAperture& to, uint64_t offset,
    std::span<const std::span<const uint8_t>> parts, Completion* completion,
    WriteOrder order) {
  if (!InRange(to.name.length_bytes, offset, TotalBytes(parts))) {
    return Beyond();
  }
  const uint64_t copied = completion == nullptr ? TotalBytes(parts) : 0;
  return Issue(to.link, completion, copied, [&](Engine& engine) {
    return engine.WriteGather(
        to.link, to.name, offset, parts, completion,
        {.is_unordered = order == WriteOrder::kUnordered});
  });
}

absl::Status Context::Read(const RemoteAperture& from, uint64_t offset,
                           std::span<uint8_t> into, Completion* completion) {
  if (!InRange(from.name.length_bytes, offset, into.size())) {
    return absl::OutOfRangeError("read beyond the peer's aperture");
  }
  return Issue(from.link, completion, 0, [&](Engine& engine) {
    return engine.Read(from.link, from.name, offset, into, completion);
  });
}

absl::Status Context::ReadScatter(const RemoteAperture& from, uint64_t offset,
                                  std::span<const std::span<uint8_t>> parts,
                                  Completion* completion) {
  if (!InRange(from.name.length_bytes, offset, TotalBytes(parts))) {
    return absl::OutOfRangeError("read beyond the peer's aperture");
  }
  return Issue(from.link, completion, 0, [&](Engine& engine) {
    return engine.ReadScatter(from.link, from.name, offset, parts, completion);
  });
}

absl::Status Context::Fence(LinkId link) {
  return Issue(link, nullptr, 0,
               [&](Engine& engine) { return engine.Fence(link); });
}

absl::Status Context::IssueAtomic(const RemoteAperture& to, uint64_t offset,
                                  uint8_t operation, uint64_t operand,
                                  uint64_t expected, uint64_t* result,
                                  Completion* completion) {
  if (!InRange(to.name.length_bytes, offset, sizeof(uint64_t))) {
    return absl::OutOfRangeError("a word beyond the peer's aperture");
  }
  if (result != nullptr && completion == nullptr) {
    return absl::InvalidArgumentError(
        "a result without a Completion: nothing would tell when it is there");
  }
  return Issue(to.link, completion, 0, [&](Engine& engine) {
    return engine.Atomic(to.link, to.name, offset,
                         static_cast<wire::AtomicOperation>(operation), operand,
                         expected, result, completion);
  });
}

absl::Status Context::FetchAdd(const RemoteAperture& to, uint64_t offset,
                               uint64_t addend, uint64_t* result,
                               Completion* completion) {
  return IssueAtomic(to, offset, wire::kFetchAdd, addend, 0, result,
                     completion);
}

absl::Status Context::CompareAndSwap(const RemoteAperture& to, uint64_t offset,
                                     uint64_t expected, uint64_t desired,
                                     uint64_t* result, Completion* completion) {
  return IssueAtomic(to, offset, wire::kCompareAndSwap, desired, expected,
                     result, completion);
}

absl::Status Context::Flush(LinkId link, Completion* completion) {
  return Issue(link, completion, 0,
               [&](Engine& engine) { return engine.Flush(link, completion); });
}

absl::Status Context::SendMessage(LinkId link,
                                  std::span<const uint8_t> message) {
  if (message.size() > kMaxMessageBytes) {
    return absl::InvalidArgumentError("a message has at most 1 MiB");
  }
  return Issue(link, nullptr, message.size(), [&](Engine& engine) {
    return engine.SendMessage(link, message);
  });
}

}  // namespace tripwire

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_SUBJECT_H_
#define TRIPWIRE_NIC_CONFORM_SUBJECT_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "nic/conform/peer.h"
#include "nic/conform/protocol.h"
#include "nic/conform/segment.h"

namespace tripwire::conform {

// Ends a test: the NIC did what makes going on pointless.
struct TestFailure {
  std::string statement;  // empty: the test's first
  std::string text;
};
// Ends a test without a verdict.
struct TestSkipped {
  std::string reason;
};

struct Exported {
  uint32_t id = 0;
  Name name;
};

struct ToldOf {
  uint8_t kind = 0, status = 0, end = 0;
  uint32_t link = 0;
  uint64_t cookie = 0, count = 0;  // cookie: the tripwire's number
  Bytes data;                      // requests: the connection data
};

struct WatchOptions {
  uint8_t access = 1;
  uint8_t mode = kPersistent;
  bool events = true;
  uint8_t predicate = 0;  // see docs/conformance.md; 0: none
  uint64_t operand = 0, mask = ~uint64_t{0};
  uint64_t every = 1;  // the threshold
};

// A tripwire's action: a write to one of our apertures.
struct ChainTo {
  uint32_t link = 0;
  Name name;
  uint64_t offset = 0;
  bool sends_word = false;
  Bytes data;
};

struct OperationState {
  uint8_t status = status::kPending;
  uint64_t result = 0;
  Bytes data;
};

struct Observed {
  uint64_t looks = 0, changes = 0, violations = 0;
};

// The NIC under test, asked through its responder. Every call throws
// TestFailure when no answer comes, and TestSkipped when the responder has no
// such thing.
class Subject {
 public:
  explicit Subject(Segment& segment) : segment_(segment) {}

  // Finds a responder (on `node`, if named) and connects to it.
  absl::Status Connect(const std::string& node);
  bool connected() const { return control_ != nullptr && control_->is_open(); }
  bool Alive();  // answers a hello
  const std::string& node() const { return node_; }
  const std::string& description() const { return description_; }
  bool Has(uint32_t ability) const { return (abilities_ & ability) != 0; }
  void Require(uint32_t ability, const char* what) const {
    if (!Has(ability)) {
      throw TestSkipped{std::string("the NIC's responder has no ") + what};
    }
  }

  uint32_t NewContext(std::string_view service);
  uint32_t NewLimitedContext(std::string_view service, uint64_t apertures,
                             uint64_t tripwires);
  void EndContext(uint32_t context);
  Exported Export(uint32_t context, uint64_t length, uint8_t rights,
                  uint32_t only_link = kAnyLink, uint8_t misalign = 0);
  void Revoke(const Exported& aperture);
  Bytes Peek(const Exported& aperture, uint64_t offset, uint32_t length);
  uint64_t PeekWord(const Exported& aperture, uint64_t offset);
  void Poke(const Exported& aperture, uint64_t offset, const Bytes& data);
  uint32_t Watch(uint32_t context, const Exported& aperture, uint64_t offset,
                 uint64_t length, const WatchOptions& options = {});
  uint32_t WatchRemote(uint32_t context, uint32_t link, const Name& name,
                       uint64_t offset, uint64_t length,
                       const WatchOptions& options = {});
  void Unwatch(uint32_t tripwire);
  void Arm(uint32_t tripwire);
  bool ArmExpected(uint32_t tripwire, uint64_t expected);
  bool Disarm(uint32_t tripwire);
  uint64_t Count(uint32_t tripwire);
  std::vector<ToldOf> Events(uint32_t context, uint16_t at_most = 64);
  void Accept(uint32_t context, uint32_t link, std::string_view data = "");
  void Reject(uint32_t context, uint32_t link);
  uint32_t StartConnect(uint32_t context, std::string_view node,
                        std::string_view service);
  void Close(uint32_t context, uint32_t link);
  bool IsUp(uint32_t context, uint32_t link);
  uint32_t Write(uint32_t context, uint32_t link, const Name& to,
                 uint64_t offset, const Bytes& data, uint8_t flags = kTracked);
  uint32_t Read(uint32_t context, uint32_t link, const Name& from,
                uint64_t offset, uint32_t length, uint8_t flags = kTracked);
  void Fence(uint32_t context, uint32_t link);
  // A persistent watch whose every firing adds 1 to the word at `counter_at` of
  // the same memory (if it is not ~0) and does `chain` (if it is given).
  uint32_t Chain(uint32_t context, const Exported& aperture, uint64_t offset,
                 uint64_t length, uint8_t access, uint64_t counter_at,
                 const ChainTo* chain);
  // Which has fired more often than `seen`, now; 255: none.
  uint8_t WaitAny(const std::vector<uint32_t>& tripwires,
                  const std::vector<uint64_t>& seen);
  uint32_t Flush(uint32_t context, uint32_t link);
  uint32_t Atomic(uint32_t context, uint32_t link, const Name& on,
                  uint64_t offset, uint8_t kind, uint64_t operand,
                  uint64_t expected);
  void Message(uint32_t context, uint32_t link, const Bytes& message);
  std::optional<Bytes> TakeMessage(uint32_t context, uint32_t link);
  OperationState Operation(uint32_t operation);
  // Waits until it ended.
  OperationState Await(uint32_t operation, uint64_t within_ns = kAnswerNs);
  uint32_t Observe(const Exported& aperture, uint8_t kind, uint64_t first,
                   uint64_t second);
  Observed EndObserve(uint32_t observer, bool go_on = false);
  uint64_t CounterValue(uint8_t counter);

 private:
  // Sends a command and waits for its reply; gives its values.
  Bytes Ask(Command command, const Bytes& arguments);
  absl::Status Find(const std::string& node);

  Segment& segment_;
  std::unique_ptr<Peer> control_;
  std::string node_, description_;
  uint32_t abilities_ = 0;
  uint32_t tokens_ = 0;
};

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_SUBJECT_H_

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_TEST_H_
#define TRIPWIRE_NIC_CONFORM_TEST_H_

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nic/conform/peer.h"
#include "nic/conform/segment.h"
#include "nic/conform/subject.h"

namespace tripwire::conform {

enum class Tier : uint8_t { kCore = 0, kFunctional = 1, kFull = 2 };
const char* ToString(Tier tier);

// Rights, and what tripwires watch for.
inline constexpr uint8_t kWriteRight = 1, kReadRight = 2, kAtomicRight = 4;

class Test;

struct TestCase {
  const char* name;
  Tier tier;
  std::vector<const char*> statements;  // what it checks; the first above all
  void (*run)(Test&);
};

// Every test of the suite, in the order they run. Those that take seconds on a
// real clock come last.
std::vector<TestCase> AllTests();

// One statement that did not hold, and what had gone over the wire by then.
struct Finding {
  std::string statement, text;
  size_t log_end = 0;
};

// One run of one test: a context of its own at the NIC under test, links to it,
// memory there; all of it goes when the test ends.
class Test {
 public:
  Test(Segment& wire, Subject& nic, int number);
  ~Test();

  Segment& wire;
  Subject& nic;

  // The context, and the service it offers.
  uint32_t context();
  const std::string& service() const { return service_; }
  // A link to it, made by us. `change` may alter what the peer says before.
  Peer& Open(const std::function<void(Peer&)>& change = nullptr);
  // Begins to connect; the request is then in the context's events.
  Peer& NewPeer();
  // The NIC's own number for the link, for commands.
  uint32_t LinkOf(const Peer& peer) const;
  // A link that the NIC makes to us.
  Peer& OpenFromNic();
  Exported Export(uint64_t length = 4096,
                  uint8_t rights = kWriteRight | kReadRight,
                  uint32_t only_link = kAnyLink, uint8_t misalign = 0) {
    return nic.Export(context(), length, rights, only_link, misalign);
  }
  // An aperture of ours for the NIC to write to: only a name, frames tell.
  static Name OurName(uint64_t length = 1 << 20) { return {7, 9, length, 7}; }
  // Events of the context, until one of this kind comes; what else comes is
  // lost.
  std::optional<ToldOf> AwaitEvent(uint8_t kind,
                                   uint64_t within_ns = kAnswerNs);

  // Check notes what did not hold; Need ends the test besides.
  void Check(bool holds, const char* statement, std::string text);
  void Need(bool holds, const char* statement, std::string text);
  void CheckStatus(uint8_t got, uint8_t wanted, const char* statement,
                   std::string what);
  void Equal(uint64_t got, uint64_t wanted, const char* statement,
             std::string what);
  [[noreturn]] void Skip(std::string reason) { throw TestSkipped{reason}; }
  // A bound for what should take `ns`.
  uint64_t Within(uint64_t ns) const { return ns + wire.world().SlackNs(); }

  std::vector<Finding>& findings() { return findings_; }

 private:
  std::string service_;
  uint32_t context_ = 0;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::map<const Peer*, uint32_t> link_of_;
  std::vector<Finding> findings_;
};

// The parts of AllTests, one for each file.
std::vector<TestCase> FramingTests();
std::vector<TestCase> HandshakeTests();
std::vector<TestCase> SequenceTests();
std::vector<TestCase> SendingTests();
std::vector<TestCase> MemoryTests();
std::vector<TestCase> MessageTests();
std::vector<TestCase> OperationTests();
std::vector<TestCase> TripwireTests();
std::vector<TestCase> AtomicTests();
std::vector<TestCase> ActionTests();
std::vector<TestCase> ScaleTests();

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_TEST_H_

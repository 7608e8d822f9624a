// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_RESPONDER_H_
#define TRIPWIRE_NIC_CONFORM_RESPONDER_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "nic/api/context.h"
#include "nic/conform/frame.h"
#include "nic/conform/protocol.h"

namespace tripwire::conform {

// The program beside the NIC under test: does what the suite asks for, through
// the public interface and nothing else. Single-threaded, but for observers.
//
// It does whatever anybody on the segment tells it (within bounds on memory and
// objects), so it is for tests and not for leaving around.
class Responder {
 public:
  explicit Responder(Nic& nic);
  ~Responder();
  Responder(const Responder&) = delete;

  absl::Status Start();  // offers the service
  // Answers what has come; returns whether there was anything.
  bool Step();
  // Steps until `stop`; sleeps in between.
  void Run(const std::atomic<bool>& stop);

 private:
  struct Memory;
  struct ContextEntry;
  struct Operation;
  struct Observer;
  struct Watched {
    uint32_t context = 0;
    uint32_t aperture = 0;  // 0 for out-bound ones
    bool takes_expected = false;
    Tripwire tripwire;
  };
  // A command's outcome.
  struct Answer {
    Result result = Result::kDone;
    Bytes values;
  };
  static Answer Bad(std::string_view why);
  static Answer Failed(const absl::Status& status);

  void Handle(const Event& event);
  void Serve(LinkId link);
  Answer Do(Command command, In& in);
  Answer DoMemory(Command command, In& in);
  Answer DoTripwire(Command command, In& in);
  Answer DoLink(Command command, In& in);
  Answer DoIssue(Command command, In& in);
  absl::Status Issue(Command command, In& in, Context& context,
                     const RemoteAperture& to, uint64_t offset,
                     Operation& operation);
  Answer DoObserve(Command command, In& in);

  Answer Hello();
  Answer NewContext(In& in, bool limited);
  Answer EndContext(In& in);
  Answer Export(In& in);
  Answer Watch(In& in, bool remote);
  Answer Chain(In& in);
  Answer WaitAny(In& in);
  Answer Events(In& in);
  Answer OperationState(In& in);
  Answer Counters();

  Context* FindContext(uint32_t id);
  Memory* FindMemory(uint32_t id);
  Operation& NewOperation(uint32_t context, uint32_t* id);

  Nic& nic_;
  std::unique_ptr<Context> control_;
  std::vector<LinkId> links_;  // to the suite
  uint32_t ids_ = 0;
  std::map<uint32_t, std::unique_ptr<ContextEntry>> contexts_;
  std::map<uint32_t, std::unique_ptr<Memory>> memories_;
  std::map<uint32_t, Watched> watched_;
  std::map<uint32_t, std::unique_ptr<Operation>> operations_;
  std::map<uint32_t, std::unique_ptr<Observer>> observers_;
  uint64_t exported_bytes_ = 0;
};

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_RESPONDER_H_

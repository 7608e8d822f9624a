// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_FUZZ_PERIPH_TOLD_SERVER_H_
#define TRIPWIRE_TESTS_FUZZ_PERIPH_TOLD_SERVER_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nic/api/context.h"
#include "periph/proto/messages.h"
#include "periph/stream/layout.h"
#include "tests/fuzz/bytes.h"

namespace tripwire::periph {

inline constexpr uint32_t kUserSlots = 3;
inline constexpr uint64_t kUserRingBytes = 1 << 16;

// What a server of streams told its user, and what the user must make of it.
// One for each link; the last is the one there is.
struct ToldStream {
  LinkId link;
  bool keeps_rules = true;  // so far; else nothing can be expected of the user
  bool asked = false;       // the user said Open
  bool opened = false;      // we said Opened
  bool closed = false;      // by us
  bool user_ended = false;  // he said End
  // Why the stream may be over for good, if it may: then with one of these
  // codes, or any if it is kUnknown.
  std::optional<absl::StatusCode> end;

  // ------------------------------------------------ a source: its ring is the
  // user's
  struct Format {
    std::string name;
    uint64_t max_bytes = 0;
  };
  std::deque<Format> unanswered;  // told; each is answered with a ring
  struct Ring {
    RemoteAperture memory;
    Format format;
    uint64_t written = 0;
  };
  std::optional<Ring> ring;  // and no other format was told since
  std::shared_ptr<Le64> credit;
  Aperture credit_aperture;

  // --------------------------------------------------- a sink: its ring is
  // ours
  std::vector<uint8_t> memory;
  Aperture aperture;
  std::optional<ApertureName> user_credit;
  uint64_t taken = 0;
};

// What is on its way, and must be as it was.
struct ToldFrame {
  std::vector<uint8_t> bytes;
  std::string format;
  uint64_t number = 0;
};

// A server of streams as a script says: it keeps the rules, nearly keeps them,
// or does not. It asserts that the user keeps them.
class ToldServer {
 public:
  ToldServer(Nic& nic, fuzz::Script& script, bool sink);
  ~ToldServer();

  // One thing that the script says (not, if `first` is false), and what comes.
  void Turn(bool first);
  // From now on everything is done right, and links stay.
  void Reform() { reformed_ = true; }

  const ToldStream* stream() const { return stream_.get(); }
  // Whether anything was ever said that lets a stream end for good, or be
  // nonsense.
  bool may_be_over() const { return may_be_over_; }
  bool ever_broke_rules() const { return ever_broke_rules_; }

  // Of a source: frames written and not yet seen by the user.
  std::deque<ToldFrame> on_the_way;
  // Of a sink: frames the user has put, of which none came yet.
  std::deque<ToldFrame> put;

 private:
  void TakeEvents();
  void TakeMessages();
  void OnMessage(const proto::StreamMessage& message);
  void OnRing(const proto::Ring& ring);
  void Say(const proto::StreamMessage& message);
  void Odd();  // rules are broken now
  void Over(absl::StatusCode code);

  void DoRight();
  void Answer();
  void WriteFrame();
  void TakeFrame();
  void ChangeFormat();
  void Close();
  void End();
  void Refuse();
  void SayAnything();
  void SayBytes();
  void WriteAnything();
  std::string Text();

  fuzz::Script& script_;
  const bool sink_;
  const std::unique_ptr<Context> context_;
  std::unique_ptr<ToldStream> stream_;
  bool reformed_ = false;
  bool may_be_over_ = false;
  bool ever_broke_rules_ = false;
  uint64_t next_number_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_FUZZ_PERIPH_TOLD_SERVER_H_

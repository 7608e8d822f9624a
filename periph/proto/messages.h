// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_PROTO_MESSAGES_H_
#define TRIPWIRE_PERIPH_PROTO_MESSAGES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "nic/api/context.h"
#include "periph/proto/periph.pb.h"

// Between the messages of periph.proto and what the program works with, both ends alike.
namespace tripwire::periph {

inline constexpr char kControlService[] = "periph";
inline constexpr char kStreamService[] = "periph-stream";
inline constexpr uint32_t kProtocolVersion = 1;
// The longest call or reply: lists of devices with all their formats.
inline constexpr uint32_t kMaxCallBytes = 1u << 18;
// A stream's message is no longer; what is, is malformed.
inline constexpr size_t kMaxStreamMessageBytes = 1u << 16;

// OK or UNAVAILABLE, as Context::SendMessage.
absl::Status Send(Context& context, LinkId link, const proto::StreamMessage& message);
// Nothing if the bytes are no message of a known kind.
std::optional<proto::StreamMessage> ParseStreamMessage(std::span<const uint8_t> bytes);

std::string ToBytes(const ApertureName& name);
std::optional<ApertureName> ParseAperture(const std::string& bytes);

// A peer's word for how something ended. A code that is none becomes UNKNOWN, and so do
// DEADLINE_EXCEEDED and CANCELLED, which only our own side can say of our calls.
absl::Status ToStatus(int code, const std::string& error);
// What a peer chose to call itself, or says of itself, fit for logs, terminals and
// messages: one line of UTF-8 (a message with anything else cannot be read) without
// control characters, cut to `limit` bytes.
std::string Printable(std::string_view text, size_t limit = 500);

// Names this run of the kernel: programs that read the same share a machine.
std::string BootId();

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_PROTO_MESSAGES_H_

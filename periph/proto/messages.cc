// SPDX-License-Identifier: BSD-3-Clause
#include "periph/proto/messages.h"

#include <algorithm>
#include <fstream>

#include "nic/base/printable.h"

namespace tripwire::periph {

absl::Status Send(Context& context, LinkId link, const proto::StreamMessage& message) {
  std::vector<uint8_t> bytes(message.ByteSizeLong());
  message.SerializeToArray(bytes.data(), static_cast<int>(bytes.size()));
  return context.SendMessage(link, bytes);
}

std::optional<proto::StreamMessage> ParseStreamMessage(std::span<const uint8_t> bytes) {
  proto::StreamMessage message;
  if (bytes.size() > kMaxStreamMessageBytes ||
      !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      message.kind_case() == proto::StreamMessage::KIND_NOT_SET) {
    return std::nullopt;
  }
  return message;
}

std::string ToBytes(const ApertureName& name) {
  std::string bytes(ApertureName::kWireBytes, '\0');
  name.Serialize(reinterpret_cast<uint8_t*>(bytes.data()));
  return bytes;
}

std::optional<ApertureName> ParseAperture(const std::string& bytes) {
  if (bytes.size() != ApertureName::kWireBytes) return std::nullopt;
  return ApertureName::Parse(reinterpret_cast<const uint8_t*>(bytes.data()));
}

absl::Status ToStatus(int code, const std::string& error) {
  if (code == 0) return absl::OkStatus();
  auto told = absl::StatusCode::kUnknown;
  if (code > 0 && code <= static_cast<int>(absl::StatusCode::kUnauthenticated)) {
    told = static_cast<absl::StatusCode>(code);
  }
  // Who hears these from his own side goes on waiting, or thinks that he was told to stop.
  if (told == absl::StatusCode::kDeadlineExceeded || told == absl::StatusCode::kCancelled) {
    told = absl::StatusCode::kUnknown;
  }
  return absl::Status(told, Printable(error));
}

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

std::string Printable(std::string_view text, size_t limit) {
  return MakePrintable(text, limit, ' ');
}

}  // namespace tripwire::periph

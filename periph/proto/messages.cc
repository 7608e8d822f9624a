// SPDX-License-Identifier: BSD-3-Clause
#include "periph/proto/messages.h"

#include <algorithm>
#include <fstream>

#include "nic/base/utf8.h"

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
  const bool is_known = code > 0 && code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  return absl::Status(is_known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
                      Printable(error));
}

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

std::string Printable(std::string_view text, size_t limit) {
  std::string line;
  while (!text.empty()) {
    const size_t known = Utf8Length(text), length = std::max<size_t>(known, 1);
    if (line.size() + length > limit) break;
    const auto first = static_cast<uint8_t>(text[0]);
    // C0, DEL, and C1, which terminals obey as they do ESC and a letter.
    const bool is_control = first < 0x20 || first == 0x7f ||
                            (known == 2 && first == 0xc2 && static_cast<uint8_t>(text[1]) < 0xa0);
    if (known == 0) {
      line += '?';
    } else if (is_control) {
      line += ' ';
    } else {
      line += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return line;
}

}  // namespace tripwire::periph

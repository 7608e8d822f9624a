// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/telemetry.h"

#include <rte_telemetry.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace tripwire {
namespace {

constexpr size_t kMaxTextBytes = RTE_TEL_MAX_STRING_LEN - 1;

struct Commands {
  std::mutex mutex;
  std::map<std::string, TelemetryCommand> answers;
};

// Never destroyed: DPDK's thread may call until the very end.
Commands& GetCommands() {
  static Commands* commands = new Commands;
  return *commands;
}

// DPDK puts texts into its JSON as they are.
std::string Text(const std::string& text) {
  std::string out = text.substr(0, kMaxTextBytes);
  for (char& c : out) {
    if (static_cast<uint8_t>(c) < 0x20 || static_cast<uint8_t>(c) > 0x7e ||
        c == '"' || c == '\\') {
      c = '?';
    }
  }
  return out;
}

// Letters, digits and these are what a name may have.
std::string Name(const std::string& name) {
  std::string out = name.substr(0, kMaxTextBytes);
  for (char& c : out) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '/') {
      c = '_';
    }
  }
  return out;
}

void Add(rte_tel_data* to, const std::string& name,
         const TelemetryValue& value) {
  if (const auto* number = std::get_if<uint64_t>(&value)) {
    rte_tel_data_add_dict_u64(to, name.c_str(), *number);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    rte_tel_data_add_dict_string(to, name.c_str(), Text(*text).c_str());
  } else {
    rte_tel_data* list = rte_tel_data_alloc();
    if (list == nullptr) return;
    rte_tel_data_start_array(list, RTE_TEL_STRING_VAL);
    for (const auto& item : std::get<std::vector<std::string>>(value)) {
      if (rte_tel_data_add_array_string(list, Text(item).c_str()) != 0) break;
    }
    if (rte_tel_data_add_dict_container(to, name.c_str(), list, 0) != 0) {
      rte_tel_data_free(list);
    }
  }
}

int Answer(const char* command, const char* parameters, rte_tel_data* out) {
  TelemetryCommand answer;
  {
    Commands& commands = GetCommands();
    std::lock_guard lock(commands.mutex);
    const auto it = commands.answers.find(command);
    if (it == commands.answers.end()) return -ENOENT;
    answer = it->second;
  }
  const auto told = answer(parameters == nullptr ? "" : parameters);
  if (!told) return -EINVAL;
  rte_tel_data_start_dict(out);
  for (const auto& [name, value] : *told) Add(out, Name(name), value);
  return 0;
}

}  // namespace

absl::Status RegisterTelemetry(const std::string& command,
                               const std::string& help,
                               TelemetryCommand answer) {
  Commands& commands = GetCommands();
  {
    std::lock_guard lock(commands.mutex);
    const bool is_new = commands.answers.emplace(command, answer).second;
    if (!is_new) return absl::AlreadyExistsError(command);
  }
  const int error =
      rte_telemetry_register_cmd(command.c_str(), Answer, help.c_str());
  if (error == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "DPDK does not take command ", command, ": ", std::strerror(-error)));
}

}  // namespace tripwire

// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/port_spec.h"

#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tripwire {
namespace {

constexpr uint32_t kMinMtu = 500;
constexpr uint32_t kMaxMtu = 65521;  // a frame of 65535 bytes
constexpr uint32_t kMinBuffers = 64;
constexpr uint32_t kMaxBuffers = 1u << 20;

absl::Status Bad(std::string_view text, const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat("port '", std::string(text), "': ", why));
}

struct Option {
  std::string key;
  std::string value;
  bool has_value;
};

Option SplitOption(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) return {text, "", false};
  return {text.substr(0, equals), text.substr(equals + 1), true};
}

std::string Quote(const Option& option) {
  return option.has_value
             ? absl::StrCat("'", option.key, "=", option.value, "'")
             : absl::StrCat("'", option.key, "'");
}

bool ParseNumber(const Option& option, uint64_t low, uint64_t high,
                 uint64_t* value) {
  return option.has_value && absl::SimpleAtoi(option.value, value) &&
         *value >= low && *value <= high;
}

bool ParseProbability(const Option& option, double* value) {
  return option.has_value && absl::SimpleAtod(option.value, value) &&
         *value >= 0 && *value <= 1;
}

// False when there is no such option, or its value is wrong.
bool SetFault(const Option& option, PortSpec::Faults& faults) {
  FaultOptions& fault = faults.options;
  const std::pair<const char*, double*> probabilities[] = {
      {"loss", &fault.loss},       {"dup", &fault.duplicate},
      {"reorder", &fault.reorder}, {"corrupt", &fault.corrupt},
      {"stall", &fault.stall},
  };
  for (const auto& [key, value] : probabilities) {
    if (option.key == key) return ParseProbability(option, value);
  }
  uint64_t number = 0;
  if (option.key == "seed") {
    return ParseNumber(option, 0, UINT64_MAX, &faults.seed);
  }
  if (option.key == "reorder-frames" && ParseNumber(option, 1, 1000, &number)) {
    fault.reorder_frames = static_cast<uint32_t>(number);
    return true;
  }
  if (option.key == "reorder-us" && ParseNumber(option, 1, 1000000, &number)) {
    fault.reorder_hold_ns = number * kMicrosecond;
    return true;
  }
  if (option.key == "stall-us" && ParseNumber(option, 1, 60000000, &number)) {
    fault.stall_ns = number * kMicrosecond;
    return true;
  }
  if (option.key == "dir") {
    fault.on_receive = option.value != "tx";
    fault.on_transmit = option.value != "rx";
    return option.value == "rx" || option.value == "tx" ||
           option.value == "both";
  }
  return false;
}

absl::Status ParseFaults(std::string_view whole, const std::string& text,
                         PortSpec& spec) {
  PortSpec::Faults faults;
  const std::vector<std::string> items =
      absl::StrSplit(text, ',', absl::SkipEmpty());
  for (const std::string& item : items) {
    const Option option = SplitOption(item);
    if (!SetFault(option, faults)) {
      return Bad(whole,
                 absl::StrCat("bad fault ", Quote(option),
                              "; there are loss=P, dup=P, reorder=P, "
                              "corrupt=P, stall=P (P from 0 to 1), seed=N, "
                              "dir=rx|tx|both, reorder-frames=N, "
                              "reorder-us=N, stall-us=N"));
    }
  }
  spec.faults = faults;
  return absl::OkStatus();
}

// Options after the target, as far as they mean something for the kind.
bool SetOption(const Option& option, PortSpec& spec) {
  uint64_t number = 0;
  const bool is_memif = spec.kind == PortSpec::Kind::kMemif;
  if (option.key == "mtu" && ParseNumber(option, kMinMtu, kMaxMtu, &number)) {
    spec.mtu = static_cast<uint32_t>(number);
    return true;
  }
  if (option.key == "buffers" &&
      ParseNumber(option, kMinBuffers, kMaxBuffers, &number)) {
    spec.buffers = static_cast<uint32_t>(number);
    return true;
  }
  if (option.key == "capture" && !option.value.empty()) {
    spec.capture = option.value;
    return true;
  }
  if (!is_memif && option.key == "telemetry" && !option.has_value) {
    return spec.telemetry = true;
  }
  if (is_memif && option.key == "listen" && !option.has_value) {
    return spec.listen = true;
  }
  if (is_memif && option.key == "wait" && !option.has_value) {
    return spec.wait = true;
  }
  if (spec.kind == PortSpec::Kind::kXdp && option.key == "queue" &&
      ParseNumber(option, 0, 4095, &number)) {
    spec.queue = static_cast<uint32_t>(number);
    return true;
  }
  return false;
}

std::string OptionsOf(PortSpec::Kind kind) {
  switch (kind) {
    case PortSpec::Kind::kMemif:
      return absl::StrCat("listen, wait, mtu=", kMinMtu, "..", kMaxMtu,
                          ", buffers=N, capture=FILE");
    case PortSpec::Kind::kXdp:
      return "mtu=N, buffers=N, queue=N, telemetry, capture=FILE";
    default:
      return "mtu=N, buffers=N, telemetry, capture=FILE";
  }
}

absl::Status ParseTarget(std::string_view whole, const std::string& text,
                         PortSpec& spec) {
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  spec.target = parts[0];
  if (spec.kind == PortSpec::Kind::kVdev || spec.kind == PortSpec::Kind::kPci) {
    // All but our own options goes to DPDK as it is.
    for (size_t i = 1; i < parts.size(); ++i) {
      const Option option = SplitOption(parts[i]);
      if (option.key == "telemetry" && !option.has_value) {
        spec.telemetry = true;
      } else if (option.key != "capture") {
        absl::StrAppend(&spec.target, ",", parts[i]);
      } else if (!SetOption(option, spec)) {
        return Bad(whole, "capture= needs the name of a file");
      }
    }
  } else {
    for (size_t i = 1; i < parts.size(); ++i) {
      const Option option = SplitOption(parts[i]);
      if (!SetOption(option, spec)) {
        return Bad(whole, absl::StrCat("bad option ", Quote(option),
                                       "; there are ", OptionsOf(spec.kind)));
      }
    }
  }
  if (spec.target.empty()) return Bad(whole, "nothing follows the colon");
  if (spec.listen && spec.wait) {
    return Bad(whole, "a listener has nobody to wait for");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PortSpec> ParsePortSpec(std::string_view text) {
  PortSpec spec;
  spec.text = std::string(text);
  std::string rest = spec.text;
  constexpr std::string_view kFaulty = "faulty:";
  if (rest.starts_with(kFaulty)) {
    rest.erase(0, kFaulty.size());
    const size_t colon = rest.find(':');
    if (colon == std::string::npos) {
      return Bad(text,
                 "faulty:FAULTS: must be followed by the port to make "
                 "faulty, as in faulty:loss=0.01:eth:eth0");
    }
    absl::Status status = ParseFaults(text, rest.substr(0, colon), spec);
    if (!status.ok()) return status;
    rest.erase(0, colon + 1);
  }
  const size_t colon = rest.find(':');
  const std::string kind = rest.substr(0, colon);
  constexpr std::pair<const char*, PortSpec::Kind> kKinds[] = {
      {"memif", PortSpec::Kind::kMemif}, {"eth", PortSpec::Kind::kEth},
      {"xdp", PortSpec::Kind::kXdp},     {"pci", PortSpec::Kind::kPci},
      {"vdev", PortSpec::Kind::kVdev},
  };
  for (const auto& [name, value] : kKinds) {
    if (kind != name || colon == std::string::npos) continue;
    spec.kind = value;
    absl::Status status = ParseTarget(text, rest.substr(colon + 1), spec);
    if (!status.ok()) return status;
    return spec;
  }
  return Bad(text, absl::StrCat("no such kind of port; there are ", kPortHelp));
}

absl::Status CheckPortSpecs(const std::vector<std::string>& specs) {
  for (const std::string& text : specs) {
    const auto spec = ParsePortSpec(text);
    if (!spec.ok()) return spec.status();
  }
  return absl::OkStatus();
}

}  // namespace tripwire

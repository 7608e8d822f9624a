// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/config.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tripwire::fs {
namespace {

// Splits at commas; "\," is a comma and "\\" a backslash.
std::vector<std::string> SplitOptions(const std::string& text) {
  std::vector<std::string> parts(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() &&
        (text[i + 1] == ',' || text[i + 1] == '\\')) {
      parts.back() += text[++i];
    } else if (text[i] == ',') {
      parts.emplace_back();
    } else {
      parts.back() += text[i];
    }
  }
  return parts;
}

absl::Status ApplyOption(const std::string& option, ExportConfig* config) {
  const size_t equals = option.find('=');
  const std::string key = option.substr(0, equals);
  const std::string value =
      equals == std::string::npos ? "" : option.substr(equals + 1);
  auto id = [&](uint32_t* out) {
    if (absl::SimpleAtoi(value, out) && *out != UINT32_MAX) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("export option '", option, "': not a user or group number"));
  };
  if (option == "ro") {
    config->read_only = true;
  } else if (option == "rw") {
    config->read_only = false;
  } else if (key == "squash") {
    if (value == "root") {
      config->squash = Squash::kRoot;
    } else if (value == "all") {
      config->squash = Squash::kAll;
    } else if (value == "none") {
      config->squash = Squash::kNone;
    } else {
      return absl::InvalidArgumentError(absl::StrCat(
          "export option '", option, "': squash is root, all or none"));
    }
  } else if (key == "anonuid") {
    return id(&config->anon_uid);
  } else if (key == "anongid") {
    return id(&config->anon_gid);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown export option '", option,
                     "' (known: ro, rw, squash=, anonuid=, anongid=; a comma in "
                     "the directory is written \\,)"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ExportConfig> ParseExport(const std::string& spec) {
  const size_t equals = spec.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("export '", spec, "': expected NAME=DIRECTORY"));
  }
  ExportConfig config;
  config.name = spec.substr(0, equals);
  for (const char c : config.name) {
    const auto u = static_cast<unsigned char>(c);
    if (u <= ' ' || u == 0x7f || c == '/' || c == ':' || c == ',') {
      return absl::InvalidArgumentError(absl::StrCat(
          "export name '", config.name, "': no blanks, '/', ':' or ',' please"));
    }
  }
  if (config.name.size() > 255) {
    return absl::InvalidArgumentError("export name: longer than 255 bytes");
  }
  auto parts = SplitOptions(spec.substr(equals + 1));
  config.directory = parts[0];
  if (config.directory.empty() || config.directory.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("export '", config.name, "': no directory given"));
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    if (auto status = ApplyOption(parts[i], &config); !status.ok()) return status;
  }
  return config;
}

std::string DefaultStateDir() {
  if (geteuid() == 0) return "/var/lib/tripwire";
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state == '/') {
    return absl::StrCat(state, "/tripwire");
  }
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') {
    const passwd* user = getpwuid(geteuid());
    home = user != nullptr ? user->pw_dir : "/tmp";
  }
  return absl::StrCat(home, "/.local/state/tripwire");
}

}  // namespace tripwire::fs

// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/mount_options.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tripwire::fuse {

const char kUsage[] =
    "Usage: tw-mount [NODE]:NAME MOUNTPOINT [-f] [-o OPTIONS] [--port PORT]...\n"
    "       mount -t tripwire [-o OPTIONS] [NODE]:NAME MOUNTPOINT\n"
    "Mounts what NODE's tw-fsd exports as NAME. An empty NODE means the only server\n"
    "there is; unmount with umount, or fusermount3 -u when not root.\n"
    "\n"
    "  -f, --foreground   stay in the foreground, log to stderr\n"
    "  -o OPTIONS         mount options, separated by commas (below)\n"
    "  --port PORT        a way onto the network: memif:PATH, eth:IFACE, xdp:IFACE,\n"
    "                     pci:ADDR, vdev:ARGS; repeatable\n"
    "  --node NAME        our own name on the network (default: the host's)\n"
    "  --log FILE         log to FILE instead of the system log\n"
    "  -v, --verbose      log more\n"
    "  -h, --help         this text\n"
    "  -V, --version      the version\n"
    "\n"
    "Options:\n"
    "  ro, rw             read-only or not\n"
    "  allow_other        let all users in (default for root; noallow_other)\n"
    "  default_permissions  the kernel checks modes (default for root;\n"
    "                     nodefault_permissions: the server alone decides)\n"
    "  acl                the kernel checks POSIX ACLs, too\n"
    "  hard               wait for a lost server for as long as it takes (default)\n"
    "  soft, softerr      give up after timeo with EIO, ETIMEDOUT\n"
    "  timeo=N            in tenths of a second (default 600)\n"
    "  actimeo=S, acregmax=S, acdirmax=S, noac\n"
    "                     how long to trust attributes and names (default: as long as\n"
    "                     the server promises to tell of changes)\n"
    "  nolock, local_lock=none|flock|posix|all\n"
    "                     locks that other hosts do not see\n"
    "  sync               each write is on the server's disk before it returns\n"
    "  direct_io          no page cache\n"
    "  max_read=N, max_write=N  bytes at a time, up to 1048576\n"
    "  spin=US            wait so many microseconds for an answer before sleeping\n"
    "                     (default 1000, less by itself while that is in vain; 0: never)\n"
    "  port=PORT, node=NAME, log=FILE  as above, for /etc/fstab\n"
    "  and those of mount(8): suid, dev, noexec, noatime, _netdev, nofail, user, x-*, ...\n";

namespace {

absl::Status Bad(const std::string& message) {
  return absl::InvalidArgumentError(message);
}

// Splits at commas; "\," is a comma and "\\" a backslash.
std::vector<std::string> SplitList(const std::string& list) {
  std::vector<std::string> words(1);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] == '\\' && i + 1 < list.size() &&
        (list[i + 1] == ',' || list[i + 1] == '\\')) {
      words.back() += list[++i];
    } else if (list[i] == ',') {
      words.emplace_back();
    } else {
      words.back() += list[i];
    }
  }
  return words;
}

bool StartsWith(const std::string& text, const char* prefix) {
  return text.compare(0, std::strlen(prefix), prefix) == 0;
}

// For mount(8), the boot scripts or old habits; nothing for us to do.
bool IsForOthers(const std::string& word) {
  static const std::set<std::string> kWords = {
      "defaults", "auto",     "noauto",     "nofail",   "_netdev",     "user",
      "nouser",   "users",    "nousers",    "owner",    "noowner",     "group",
      "nogroup",  "relatime", "atime",      "diratime", "strictatime", "lazytime",
      "nolazytime", "norelatime", "intr",   "nointr",   "fg",          "async",
      "loud",     "silent",   "auto_unmount", "nonempty", "iversion",  "noiversion",
      "mand",     "nomand",   "_rnetdev",   "noquota",  "remount"};
  return kWords.count(word) || StartsWith(word, "x-") || StartsWith(word, "X-") ||
         StartsWith(word, "comment=") || StartsWith(word, "user=") ||
         StartsWith(word, "uhelper=") || StartsWith(word, "helper=");
}

bool IsForTheKernel(const std::string& word) {
  static const std::set<std::string> kWords = {
      "suid", "nosuid", "dev", "nodev", "exec", "noexec", "dirsync", "noatime",
      "nodiratime", "allow_root"};
  return kWords.count(word) || StartsWith(word, "context=") ||
         StartsWith(word, "fscontext=") || StartsWith(word, "defcontext=") ||
         StartsWith(word, "rootcontext=");
}

absl::Status ReadNumber(const std::string& name, const std::string& value,
                        double least, double most, double* out) {
  double number = 0;
  if (!absl::SimpleAtod(value, &number) || !std::isfinite(number) ||
      number < least || number > most) {
    return Bad(absl::StrCat("option ", name, "=", value, " is not a number from ",
                            least, " to ", most));
  }
  *out = number;
  return absl::OkStatus();
}

absl::Status ReadSize(const std::string& name, const std::string& value,
                      uint32_t* out) {
  double number = 0;
  if (auto s = ReadNumber(name, value, 4096, 1 << 20, &number); !s.ok()) return s;
  *out = static_cast<uint32_t>(number) & ~4095u;  // whole pages
  return absl::OkStatus();
}

}  // namespace

// Applies words of an option list one by one.
class OptionReader {
 public:
  explicit OptionReader(MountOptions* options) : o_(*options) {}

  absl::Status Apply(const std::string& word) {
    if (word.empty() || IsForOthers(word)) return absl::OkStatus();
    if (IsForTheKernel(word)) {
      o_.kernel_options.push_back(word);
      return absl::OkStatus();
    }
    if (Switch(word)) return absl::OkStatus();
    const size_t equals = word.find('=');
    if (equals != std::string::npos) {
      bool known = true;
      absl::Status status =
          Value(word.substr(0, equals), word.substr(equals + 1), &known);
      if (known) return status;
    }
    if (o_.sloppy) return absl::OkStatus();
    return Bad(absl::StrCat("unknown mount option ", word, "; see tw-mount --help"));
  }

  // What nobody said anything about.
  void Finish(bool is_root) {
    if ((is_root && !o_.no_allow_other_) || o_.allow_other_) {
      o_.kernel_options.push_back("allow_other");
    }
    if (!permissions_said_) o_.fs.default_permissions = is_root;
    if (o_.fs.default_permissions) o_.kernel_options.push_back("default_permissions");
    if (o_.fs.read_only) o_.kernel_options.push_back("ro");
  }
  bool& permissions_said() { return permissions_said_; }

 private:
  bool Switch(const std::string& word) {
    FsOptions& fs = o_.fs;
    static const std::map<std::string, std::function<void(OptionReader&)>> kSwitches = {
        {"ro", [](OptionReader& r) { r.o_.fs.read_only = true; }},
        {"rw", [](OptionReader& r) { r.o_.fs.read_only = false; }},
        {"allow_other", [](OptionReader& r) { r.o_.allow_other_ = true; }},
        {"noallow_other",
         [](OptionReader& r) {
           r.o_.allow_other_ = false;
           r.o_.no_allow_other_ = true;
         }},
        {"default_permissions",
         [](OptionReader& r) {
           r.permissions_said_ = r.o_.fs.default_permissions = true;
         }},
        {"nodefault_permissions",
         [](OptionReader& r) {
           r.permissions_said_ = true;
           r.o_.fs.default_permissions = false;
         }},
        {"hard", [](OptionReader& r) { r.o_.fs.patience.soft = false; }},
        {"soft",
         [](OptionReader& r) {
           r.o_.fs.patience.soft = true;
           r.o_.fs.patience.error = EIO;
         }},
        {"softerr",
         [](OptionReader& r) {
           r.o_.fs.patience.soft = true;
           r.o_.fs.patience.error = ETIMEDOUT;
         }},
        {"ac",
         [](OptionReader& r) {
           r.o_.fs.file_timeout_s.reset();
           r.o_.fs.dir_timeout_s.reset();
         }},
        {"noac",
         [](OptionReader& r) {
           r.o_.fs.file_timeout_s = r.o_.fs.dir_timeout_s = 0;
           r.o_.fs.sync = true;
         }},
        {"lock",
         [](OptionReader& r) { r.o_.fs.local_posix = r.o_.fs.local_flock = false; }},
        {"nolock",
         [](OptionReader& r) { r.o_.fs.local_posix = r.o_.fs.local_flock = true; }},
        {"sync", [](OptionReader& r) { r.o_.fs.sync = true; }},
        {"direct_io", [](OptionReader& r) { r.o_.fs.direct_io = true; }},
        {"acl", [](OptionReader& r) { r.o_.fs.posix_acl = true; }},
        {"noacl", [](OptionReader& r) { r.o_.fs.posix_acl = false; }},
    };
    auto it = kSwitches.find(word);
    if (it == kSwitches.end()) return false;
    it->second(*this);
    (void)fs;
    return true;
  }

  absl::Status Value(const std::string& name, const std::string& value, bool* known) {
    constexpr double kDay = 86400;
    double number = 0;
    const auto seconds = [&](std::optional<double>* out) {
      absl::Status status = ReadNumber(name, value, 0, kDay, &number);
      if (status.ok()) *out = number;
      return status;
    };
    if (name == "timeo") {
      absl::Status status = ReadNumber(name, value, 1, kDay * 10, &number);
      o_.fs.patience.timeout_ns = static_cast<uint64_t>(number * 100e6);
      return status;
    }
    if (name == "spin") {
      absl::Status status = ReadNumber(name, value, 0, 100'000, &number);
      o_.spin_us = static_cast<uint32_t>(number);
      return status;
    }
    if (name == "retrans") return ReadNumber(name, value, 0, 1e6, &number);
    if (name == "actimeo") {
      absl::Status status = seconds(&o_.fs.file_timeout_s);
      o_.fs.dir_timeout_s = o_.fs.file_timeout_s;
      return status;
    }
    if (name == "acregmax") return seconds(&o_.fs.file_timeout_s);
    if (name == "acdirmax") return seconds(&o_.fs.dir_timeout_s);
    // Leases adapt by themselves; a minimum alone changes nothing.
    if (name == "acregmin" || name == "acdirmin") {
      return ReadNumber(name, value, 0, kDay, &number);
    }
    if (name == "max_read" || name == "rsize") {
      return ReadSize(name, value, &o_.max_read);
    }
    if (name == "max_write" || name == "wsize") {
      return ReadSize(name, value, &o_.fs.max_write);
    }
    if (name == "local_lock") return LocalLock(value);
    if (name == "port" || name == "node" || name == "log") {
      if (value.empty()) return Bad(absl::StrCat("option ", name, "= has no value"));
      if (name == "port") o_.ports.push_back(value);
      if (name == "node") o_.own_node = value;
      if (name == "log") o_.log_file = value;
      return absl::OkStatus();
    }
    *known = false;
    return absl::OkStatus();
  }

  absl::Status LocalLock(const std::string& value) {
    const bool all = value == "all";
    if (!all && value != "none" && value != "flock" && value != "posix") {
      return Bad(absl::StrCat("option local_lock=", value,
                              " is none of none, flock, posix, all"));
    }
    o_.fs.local_posix = all || value == "posix";
    o_.fs.local_flock = all || value == "flock";
    return absl::OkStatus();
  }

  MountOptions& o_;
  bool permissions_said_ = false;
};

absl::Status ApplyOptionList(const std::string& list, MountOptions* options) {
  OptionReader reader(options);
  for (const std::string& word : SplitList(list)) {
    if (absl::Status status = reader.Apply(word); !status.ok()) return status;
  }
  return absl::OkStatus();
}

namespace {

// The words of a command line, one after the other.
class Arguments {
 public:
  Arguments(int argc, const char* const* argv) : next_(argv + 1), end_(argv + argc) {}
  bool Next(std::string* word) {
    if (next_ >= end_) return false;
    *word = *next_++;
    return true;
  }
  // The value of an option: "--name=value", "-ovalue", or the next word.
  absl::Status Value(const std::string& option, const std::string& attached,
                     bool has_attached, std::string* value) {
    if (has_attached) {
      *value = attached;
    } else if (!Next(value)) {
      return Bad(absl::StrCat(option, " needs a value; see tw-mount --help"));
    }
    return absl::OkStatus();
  }

 private:
  const char* const* next_;
  const char* const* end_;
};

absl::Status SplitSource(MountOptions* options) {
  const size_t colon = options->source.find(':');
  if (colon == std::string::npos) {
    return Bad(absl::StrCat("what to mount must be [NODE]:NAME, not \"",
                            options->source, "\"; see tw-mount --help"));
  }
  options->node = options->source.substr(0, colon);
  options->fs.export_name = options->source.substr(colon + 1);
  if (options->source.find('\n') != std::string::npos) {
    return Bad("what to mount must not contain a line break");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseCommandLine(int argc, const char* const* argv, bool is_root,
                              MountOptions* options) {
  const std::string self = argc > 0 ? argv[0] : "tw-mount";
  const bool helper = self.substr(self.rfind('/') + 1) == "mount.tripwire";
  OptionReader reader(options);
  std::vector<std::string> lists, positional;
  Arguments arguments(argc, argv);
  std::string word, value;
  bool only_positional = false;
  while (arguments.Next(&word)) {
    if (only_positional || word.size() < 2 || word[0] != '-') {
      positional.push_back(word);
      continue;
    }
    if (word == "--") {
      only_positional = true;
      continue;
    }
    std::string name = word, attached;
    bool has_attached = false;
    if (word[1] == '-') {
      const size_t equals = word.find('=');
      if (equals != std::string::npos) {
        name = word.substr(0, equals);
        attached = word.substr(equals + 1);
        has_attached = true;
      }
    } else if (word.size() > 2 && std::strchr("otN", word[1])) {
      name = word.substr(0, 2);
      attached = word.substr(2);
      has_attached = true;
    } else if (word.size() > 2) {  // -sfnv, as mount(8) may join them
      std::vector<std::string> letters;
      for (size_t i = 1; i < word.size(); ++i) letters.push_back({'-', word[i]});
      for (const std::string& letter : letters) {
        if (!std::strchr("sfnvrwhV", letter[1])) {
          return Bad(absl::StrCat("unknown option ", word, "; see tw-mount --help"));
        }
        if (letter == "-f") (helper ? options->fake : options->foreground) = true;
        if (letter == "-s") options->sloppy = true;
        if (letter == "-v") options->verbose = true;
        if (letter == "-r") lists.push_back("ro");
      }
      continue;
    }
    if (name == "-h" || name == "--help") {
      options->show_help = true;
    } else if (name == "-V" || name == "--version") {
      options->show_version = true;
    } else if (name == "-f") {
      (helper ? options->fake : options->foreground) = true;
    } else if (name == "--foreground") {
      options->foreground = true;
    } else if (name == "-v" || name == "--verbose") {
      options->verbose = true;
    } else if (name == "-s") {
      options->sloppy = true;
    } else if (name == "-r") {
      lists.push_back("ro");
    } else if (name == "-n" || name == "-w") {
      // -n: no /etc/mtab, there is none; -w: the default
    } else if (name == "-o" || name == "-t" || name == "-N" || name == "--port" ||
               name == "--node" || name == "--log") {
      absl::Status status = arguments.Value(name, attached, has_attached, &value);
      if (!status.ok()) return status;
      if (name == "-o") lists.push_back(value);
      if (name == "--port") options->ports.push_back(value);
      if (name == "--node") options->own_node = value;
      if (name == "--log") options->log_file = value;
    } else {
      return Bad(absl::StrCat("unknown option ", word, "; see tw-mount --help"));
    }
  }
  if (options->show_help || options->show_version) return absl::OkStatus();
  for (const std::string& list : lists) {
    for (const std::string& option : SplitList(list)) {
      if (absl::Status status = reader.Apply(option); !status.ok()) return status;
    }
  }
  if (positional.size() != 2) {
    return Bad(absl::StrCat(positional.size() < 2 ? "too few" : "too many",
                            " arguments: need [NODE]:NAME and MOUNTPOINT; see "
                            "tw-mount --help"));
  }
  options->source = positional[0];
  options->mountpoint = positional[1];
  reader.Finish(is_root);
  return SplitSource(options);
}

}  // namespace tripwire::fuse

// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/identity.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace tripwire::fs::identity {
namespace {

constexpr uint64_t Bit(int capability) { return uint64_t{1} << capability; }
constexpr uint64_t kToSwitch = Bit(CAP_SETUID) | Bit(CAP_SETGID);

// What the thread is now. The kernel is asked once, when a thread first comes here.
struct ThreadState {
  bool known = false;
  bool can_switch = false;
  bool own_umask = false;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::vector<uint32_t> groups;
  uint32_t umask = UINT32_MAX;
  uint64_t permitted = 0;
  uint64_t effective = 0;
};

thread_local ThreadState state;

// The server's own, from before anybody was assumed.
struct Self {
  uint32_t gid = getegid();
  std::vector<uint32_t> groups = Groups();
  static std::vector<uint32_t> Groups() {
    const int count = getgroups(0, nullptr);
    std::vector<uint32_t> groups(count > 0 ? static_cast<size_t>(count) : 0);
    if (count > 0 && getgroups(count, groups.data()) < 0) groups.clear();
    return groups;
  }
};

const Self& TheSelf() {
  static const Self self;
  return self;
}

bool GetCaps(uint64_t* permitted, uint64_t* effective) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  *permitted = data[0].permitted | uint64_t{data[1].permitted} << 32;
  *effective = data[0].effective | uint64_t{data[1].effective} << 32;
  return true;
}

bool SetEffective(uint64_t effective) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  data[0].permitted = static_cast<uint32_t>(state.permitted);
  data[1].permitted = static_cast<uint32_t>(state.permitted >> 32);
  data[0].effective = static_cast<uint32_t>(effective);
  data[1].effective = static_cast<uint32_t>(effective >> 32);
  if (syscall(SYS_capset, &header, data) != 0) return false;
  state.effective = effective;
  return true;
}

void Learn() {
  if (state.known) return;
  state.known = true;
  GetCaps(&state.permitted, &state.effective);
  TheSelf();
  // A thread starts as what its creator was just then.
  state.uid = static_cast<uint32_t>(syscall(SYS_setfsuid, -1));
  state.gid = static_cast<uint32_t>(syscall(SYS_setfsgid, -1));
  state.groups = Self::Groups();
  state.can_switch = geteuid() == 0 && (state.permitted & kToSwitch) == kToSwitch;
  // A umask (and working directory) of this thread's own.
  state.own_umask = unshare(CLONE_FS) == 0;
}

int Become(uint32_t uid, uint32_t gid, const std::vector<uint32_t>& groups) {
  if (uid == UINT32_MAX || gid == UINT32_MAX) return EPERM;
  if (groups != state.groups) {
    if (syscall(SYS_setgroups, groups.size(), groups.data()) != 0) return EPERM;
    state.groups = groups;
  }
  if (gid != state.gid) {
    syscall(SYS_setfsgid, gid);
    // These calls do not tell of failure; asking with an invalid id does.
    if (static_cast<uint32_t>(syscall(SYS_setfsgid, -1)) != gid) return EPERM;
    state.gid = gid;
  }
  if (uid != state.uid) {
    syscall(SYS_setfsuid, uid);
    if (static_cast<uint32_t>(syscall(SYS_setfsuid, -1)) != uid) return EPERM;
    const bool was_root = state.uid == 0;
    state.uid = uid;
    if (was_root || uid == 0) {
      const uint64_t effective = uid == 0 ? state.permitted : kToSwitch;
      if (!SetEffective(effective)) return EPERM;
    }
  }
  return 0;
}

}  // namespace

bool CanSwitch() {
  Learn();
  return state.can_switch;
}

int Assume(const Caller& caller) {
  Learn();
  if (!state.can_switch) return 0;
  return Become(caller.uid, caller.gid, caller.groups);
}

int AssumeSelf() {
  Learn();
  if (!state.can_switch) return 0;
  return Become(0, TheSelf().gid, TheSelf().groups);
}

void SetUmask(uint32_t mask) {
  Learn();
  mask &= 0777;
  if (!state.own_umask || mask == state.umask) return;
  umask(static_cast<mode_t>(mask));
  state.umask = mask;
}

ReadAnything::ReadAnything() {
  Learn();
  constexpr uint64_t kSearch = Bit(CAP_DAC_READ_SEARCH);
  if ((state.effective & kSearch) != 0 || (state.permitted & kSearch) == 0) return;
  raised_ = SetEffective(state.effective | kSearch);
}

ReadAnything::~ReadAnything() {
  if (raised_) SetEffective(state.effective & ~Bit(CAP_DAC_READ_SEARCH));
}

}  // namespace tripwire::fs::identity

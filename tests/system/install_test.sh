#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# install_test.sh BUILD-DIRECTORY
# Installs the build into an empty prefix and builds a small program against it
# as a stranger would: once with CMake, once with pkg-config. Runs both.
set -euo pipefail
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

cmake --install "$build" --prefix "$prefix" >"$work/log" || { cat "$work/log"; exit 1; }
for file in include/tripwire/nic/api/context.h bin/tw bin/tw-fsd bin/tw-mount sbin/mount.tripwire \
            share/tripwire/wireshark/tripwire.lua; do
  [[ -e $prefix/$file || -L $prefix/$file ]] || { echo "not installed: $file"; exit 1; }
done
"$prefix/bin/tw" --version

cat >"$work/ping.cc" <<'END'
// Two NICs on an in-memory segment: one writes, the other's tripwire fires.
#include <array>
#include <cstdio>
#include <utility>
#include "nic/api/context.h"
#include "nic/port/fabric.h"

using namespace tripwire;

int main() {
  SystemClock clock;
  Fabric fabric(clock);
  auto open = [&](const char* name) {
    NicOptions options;
    options.node = name;
    options.ports.push_back(fabric.AddPort(name));
    options.service_thread = false;
    options.clock = &clock;
    return Nic::Open(std::move(options));
  };
  auto a = open("a"), b = open("b");
  if (!a.ok() || !b.ok()) return 1;
  {
    auto ca = (*a)->CreateContext(), cb = (*b)->CreateContext();
    if (!cb->Listen("ping").ok()) return 2;
    alignas(8) std::array<uint8_t, 64> memory{};
    Aperture aperture = cb->Export(memory, Access::kWrite);
    Tripwire wire = cb->Watch(aperture, 0, 8, Access::kWrite, TripwireMode::kOneShot);
    wire.Arm();
    const auto link = ca->StartConnect("b", "ping", {});
    if (!link.ok()) return 5;
    Completion done;
    bool sent = false;
    for (int i = 0; i < 1000000 && wire.count() == 0; ++i) {
      Event event;
      if (cb->Poll({&event, 1}) && event.kind == EventKind::kConnectRequest) {
        if (!cb->Accept(event.link, {}).ok()) return 3;
      }
      if (ca->Poll({&event, 1}) && event.kind == EventKind::kLinkDown) return 4;
      if (!sent && ca->IsUp(*link)) {
        const uint8_t hello[8] = {42};
        const RemoteAperture there = ca->Import(*link, aperture.name());
        const WriteRequest list[] = {{there, 8, hello}, {there, 0, hello, &done}};
        sent = ca->WriteMany(list).ok();
      }
    }
    if (wire.count() != 1 || memory[0] != 42 || memory[8] != 42) return 5;
    std::puts("the tripwire fired");
    wire.Remove();
    aperture.Revoke();
  }
}
END
cat >"$work/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(stranger LANGUAGES C CXX)
find_package(tripwire 0.1 REQUIRED)
add_executable(ping ping.cc)
target_link_libraries(ping PRIVATE tripwire::comm)
END

cmake -S "$work" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
cmake --build "$work/build" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
timeout 60 "$work/build/ping"

pc=$(find "$prefix" -name tripwire.pc -printf '%h')
export PKG_CONFIG_PATH=$pc
[[ $(pkg-config --modversion tripwire) == 0.1.0 ]]
# Nothing from where the library may be installed already.
[[ $(pkg-config --cflags tripwire) == *"$prefix"* || $(pkg-config --cflags tripwire) == *"$pc"* ]]
# shellcheck disable=SC2046
c++ "$work/ping.cc" -o "$work/ping" $(pkg-config --cflags --libs tripwire)
timeout 60 "$work/ping"
echo "install: usable with CMake and with pkg-config"

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SYSTEM_HARNESS_DEVICES_H_
#define TRIPWIRE_TESTS_SYSTEM_HARNESS_DEVICES_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "nic/base/fd.h"
#include "tests/system/harness/network.h"
#include "tests/system/harness/process.h"
#include "tests/system/harness/share.h"

namespace tripwire::systest {

// A tw-periphd by the node name "server", and programs that use it.
class DeviceServer {
 public:
  explicit DeviceServer(Wire wire, int clients = 1);
  ~DeviceServer();

  // Offers devices, each "NAME=SPEC"; returns when they can be used.
  void Start(const Argv& devices, const Argv& more = {});
  Process& process() { return process_; }
  void Crash() { process_.Kill(); }
  const TempDir& temp() const { return temp_; }
  const Network& network() const { return network_; }
  std::string Path(const std::string& name) const {
    return temp_.path() + "/" + name;
  }

  // tw-periph with these arguments, as client number `client`.
  Argv Command(const Argv& arguments, int client = 0) const;
  Process Begin(const Argv& arguments, int client = 0) const;
  Result Run(const Argv& arguments, double timeout_seconds = 60,
             int client = 0) const;
  // A line of a shell, at a client's node.
  Process BeginLine(const std::string& line, int client = 0) const;
  Result RunLine(const std::string& line, int client = 0) const;

 private:
  TempDir temp_;
  Network network_;
  Process process_;
};

// A server and two clients, over each kind of wire.
class DeviceTest : public ::testing::TestWithParam<Wire> {
 protected:
  DeviceServer server_{GetParam(), 2};
};

// A failure that says so in one line, which has this in it.
void ExpectOneLine(const Result& result, const std::string& said);

// A pty: what has its slave open is at one end of a serial line, the test at
// the other.
struct FarLine {
  FarLine();
  UniqueFd master, slave;
  std::string path;  // of the slave
};

// A terminal, raw, as programs open it; throws if it cannot.
UniqueFd OpenTerminal(const std::string& path);

// Both directions at once: all of `there` written to `a` must come out of `b`,
// and of `back` the other way. False after the time.
struct Exchanged {
  std::string there, back;  // what arrived
};
Exchanged Exchange(int a, int b, const std::string& there,
                   const std::string& back, double seconds);

}  // namespace tripwire::systest

#endif  // TRIPWIRE_TESTS_SYSTEM_HARNESS_DEVICES_H_

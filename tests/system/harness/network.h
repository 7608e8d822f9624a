// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SYSTEM_HARNESS_NETWORK_H_
#define TRIPWIRE_TESTS_SYSTEM_HARNESS_NETWORK_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nic/base/fd.h"
#include "tests/system/harness/process.h"

namespace tripwire::systest {

// What is between the programs.
enum class Wire {
  kMemif,  // shared memory, one listener
  kEth,    // AF_PACKET, each node in a network namespace, a bridge between
  kXdp,    // AF_XDP, likewise
  kFaultyMemif,  // memif with 1 % loss, duplication and reordering each way
  kFaultyEth,    // the same over AF_PACKET
};
std::string_view Name(Wire wire);
// For INSTANTIATE_TEST_SUITE_P.
std::string WireName(const ::testing::TestParamInfo<Wire>& info);

// A network namespace kept alive by a process that sleeps in it; when that is
// gone, so is the namespace, with all interfaces in it.
class Namespace {
 public:
  Namespace();
  int fd() const { return fd_.get(); }
  pid_t pid() const { return holder_.pid(); }
  SpawnOptions Inside() const { return {.network_fd = fd_.get()}; }

 private:
  Process holder_;
  UniqueFd fd_;
};

// One server node and some client nodes on a segment.
class Network {
 public:
  Network(Wire wire, const std::string& directory, int clients);

  Wire wire() const { return wire_; }
  // What to give the programs as --port.
  std::string ServerPort() const;
  std::string ClientPort(int client) const;
  SpawnOptions ServerNode() const;
  SpawnOptions ClientNode(int client) const;

  // Takes the server's cable out, and puts it back. REQUIRES: HasCable().
  bool HasCable() const { return switch_ != nullptr; }
  void SetCable(bool is_in);

 private:
  void AddNode();
  std::string Decorated(std::string port) const;

  Wire wire_;
  std::string directory_;
  std::unique_ptr<Namespace> switch_;
  std::vector<std::unique_ptr<Namespace>> nodes_;  // the server's first
};

}  // namespace tripwire::systest

#endif  // TRIPWIRE_TESTS_SYSTEM_HARNESS_NETWORK_H_

// SPDX-License-Identifier: BSD-3-Clause
#include "tests/system/harness/network.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <stdexcept>

namespace tripwire::systest {
namespace {

ino_t NetworkInode(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_ino : 0;
}

// The faulty port's part of a port's specification (docs/ports.md).
constexpr char kFaults[] = "faulty:loss=0.01,dup=0.01,reorder=0.01:";

}  // namespace

std::string_view Name(Wire wire) {
  switch (wire) {
    case Wire::kMemif:
      return "Memif";
    case Wire::kEth:
      return "Eth";
    case Wire::kXdp:
      return "Xdp";
    case Wire::kFaultyMemif:
      return "FaultyMemif";
    case Wire::kFaultyEth:
      return "FaultyEth";
  }
  return "?";
}

std::string WireName(const ::testing::TestParamInfo<Wire>& info) {
  return std::string(Name(info.param));
}

Namespace::Namespace() : holder_({"unshare", "--net", "sleep", "infinity"}) {
  const ino_t ours = NetworkInode("/proc/self/ns/net");
  const std::string path = "/proc/" + std::to_string(holder_.pid()) + "/ns/net";
  const bool made = Eventually(10, [&] {
    const ino_t theirs = NetworkInode(path);
    return theirs != 0 && theirs != ours;
  });
  if (!made) throw std::runtime_error("no network namespace: " + holder_.err());
  fd_.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd_) throw std::runtime_error("cannot open " + path);
  MustRun({"ip", "link", "set", "lo", "up"}, 10, Inside());
}

Network::Network(Wire wire, const std::string& directory, int clients)
    : wire_(wire), directory_(directory) {
  if (wire == Wire::kMemif || wire == Wire::kFaultyMemif) return;
  switch_ = std::make_unique<Namespace>();
  MustRun({"ip", "link", "add", "br0", "type", "bridge"}, 10,
          switch_->Inside());
  MustRun({"ip", "link", "set", "br0", "up"}, 10, switch_->Inside());
  for (int i = 0; i < clients + 1; ++i) AddNode();
}

void Network::AddNode() {
  nodes_.push_back(std::make_unique<Namespace>());
  Namespace& node = *nodes_.back();
  const std::string plug = "plug" + std::to_string(nodes_.size() - 1);
  const SpawnOptions in_switch = switch_->Inside();
  MustRun({"ip", "link", "add", plug, "type", "veth", "peer", "name", "tw0",
           "netns", std::to_string(node.pid())},
          10, in_switch);
  MustRun({"ip", "link", "set", plug, "master", "br0", "up"}, 10, in_switch);
  MustRun({"ip", "link", "set", "tw0", "up"}, 10, node.Inside());
}

std::string Network::Decorated(std::string port) const {
  if (wire_ != Wire::kFaultyMemif && wire_ != Wire::kFaultyEth) return port;
  return kFaults + port;
}

std::string Network::ServerPort() const {
  if (HasCable()) return Decorated(wire_ == Wire::kXdp ? "xdp:tw0" : "eth:tw0");
  return Decorated("memif:" + directory_ + "/nic.sock,listen");
}

std::string Network::ClientPort(int) const {
  if (HasCable()) return ServerPort();
  return Decorated("memif:" + directory_ + "/nic.sock");
}

SpawnOptions Network::ServerNode() const {
  return HasCable() ? nodes_[0]->Inside() : SpawnOptions{};
}

SpawnOptions Network::ClientNode(int client) const {
  return HasCable() ? nodes_.at(static_cast<size_t>(client) + 1)->Inside()
                    : SpawnOptions{};
}

void Network::SetCable(bool is_in) {
  MustRun({"ip", "link", "set", "plug0", is_in ? "up" : "down"}, 10,
          switch_->Inside());
}

}  // namespace tripwire::systest

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONTROL_DISCOVERY_H_
#define TRIPWIRE_NIC_CONTROL_DISCOVERY_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nic/base/mac_address.h"
#include "nic/datapath/engine.h"

namespace tripwire {

// One node's answer: who it is and where it was heard.
struct Announcement {
  uint32_t token = 0;
  std::string node;
  std::vector<std::string> services;
  size_t port = 0;
  PathId path = 0;
  MacAddress mac;
};

// Asks who is there, and answers when asked.
class Discovery {
 public:
  Discovery(Engine& engine, std::string node)
      : engine_(engine), node_(std::move(node)) {}

  const std::string& node() const { return node_; }

  // Offers `service` on behalf of `context`; false when another context does.
  bool Offer(const std::string& service, uint32_t context);
  void Withdraw(const std::string& service, uint32_t context);
  void WithdrawAll(uint32_t context);
  // The context offering `service`, or UINT32_MAX.
  uint32_t Offerer(const std::string& service) const;

  // Broadcasts one question on every port.
  void Ask(const std::string& node, const std::string& service,
           uint32_t token);
  // Asks everybody, a few times, and collects the answers from now on.
  void StartSurvey();
  const std::vector<Announcement>& survey() const { return survey_; }

  // Frame handlers: false for a malformed body.
  bool OnDiscover(size_t port, PathId path, const wire::FrameView& view);
  bool OnAnnounce(size_t port, PathId path, const wire::FrameView& view,
                  Announcement* heard);
  uint64_t OnTime(uint64_t now_ns);

 private:
  Engine& engine_;
  const std::string node_;
  std::map<std::string, uint32_t> offers_;
  std::vector<Announcement> survey_;
  uint32_t survey_token_ = 0;
  int surveys_left_ = 0;
  uint64_t survey_at_ = kNever;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_CONTROL_DISCOVERY_H_

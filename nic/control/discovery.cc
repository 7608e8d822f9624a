// SPDX-License-Identifier: BSD-3-Clause
#include "nic/control/discovery.h"

#include <algorithm>

#include "nic/control/body.h"
#include "nic/control/control.pb.h"

namespace tripwire {
namespace {

constexpr size_t kMaxServices = 64;
constexpr size_t kMaxSurvey = 4096;  // answers kept, whoever sends more
constexpr int kSurveyRepeats = 3;    // a question may be lost
constexpr uint64_t kSurveyEveryNs = 30 * kMillisecond;

}  // namespace

bool Discovery::Offer(const std::string& service, uint32_t context) {
  return offers_.emplace(service, context).first->second == context;
}

void Discovery::Withdraw(const std::string& service, uint32_t context) {
  auto it = offers_.find(service);
  if (it != offers_.end() && it->second == context) offers_.erase(it);
}

void Discovery::WithdrawAll(uint32_t context) {
  std::erase_if(offers_, [&](const auto& o) { return o.second == context; });
}

uint32_t Discovery::Offerer(const std::string& service) const {
  auto it = offers_.find(service);
  return it == offers_.end() ? UINT32_MAX : it->second;
}

void Discovery::Ask(const std::string& node, const std::string& service,
                    uint32_t token) {
  control::Discover question;
  question.set_node(node);
  question.set_service(service);
  question.set_token(token);
  const std::string body = question.SerializeAsString();
  for (size_t port = 0; port < engine_.ports().size(); ++port) {
    engine_.SendControl(port, kAllPaths, MacAddress::Broadcast(),
                        wire::kDiscover, 0, 0, AsBytes(body));
  }
}

void Discovery::StartSurvey() {
  survey_.clear();
  survey_token_ = engine_.random().Next32();
  surveys_left_ = kSurveyRepeats;
  survey_at_ = 0;
  engine_.WakeControl();
}

uint64_t Discovery::OnTime(uint64_t now_ns) {
  if (surveys_left_ > 0 && now_ns >= survey_at_) {
    --surveys_left_;
    survey_at_ = now_ns + kSurveyEveryNs;
    Ask("", "", survey_token_);
  }
  return surveys_left_ > 0 ? survey_at_ : kNever;
}

bool Discovery::OnDiscover(size_t port, PathId path,
                           const wire::FrameView& view) {
  control::Discover question;
  if (!question.ParseFromArray(view.payload.data(),
                               static_cast<int>(view.payload.size()))) {
    return false;
  }
  if (!question.node().empty() && question.node() != node_) return true;
  // Nobody's question is about a NIC that offers nothing, unless it asks for
  // this node by name: then the answer is that the service is not here.
  if (question.node().empty() && !question.service().empty() &&
      Offerer(question.service()) == UINT32_MAX) {
    return true;
  }
  control::Announce answer;
  answer.set_node(node_);
  answer.set_token(question.token());
  // As many as fit, the one that is asked for first.
  const size_t room = engine_.ports()[port]->info().max_frame_bytes -
                      wire::kHeaderBytes - wire::kChecksumBytes;
  const auto add = [&](const std::string& service) {
    if (answer.services_size() == static_cast<int>(kMaxServices)) return;
    answer.add_services(service);
    if (answer.ByteSizeLong() > room) answer.mutable_services()->RemoveLast();
  };
  const bool has = Offerer(question.service()) != UINT32_MAX;
  if (has) add(question.service());
  for (const auto& [service, context] : offers_) {
    if (!has || service != question.service()) add(service);
  }
  const std::string body = answer.SerializeAsString();
  engine_.SendControl(port, path, view.source(), wire::kAnnounce, 0, 0,
                      AsBytes(body));
  return true;
}

bool Discovery::OnAnnounce(size_t port, PathId path,
                           const wire::FrameView& view, Announcement* heard) {
  control::Announce answer;
  if (!answer.ParseFromArray(view.payload.data(),
                             static_cast<int>(view.payload.size())) ||
      answer.node().empty() || answer.node().size() > kMaxNameBytes ||
      answer.services_size() > static_cast<int>(kMaxServices)) {
    return false;
  }
  heard->token = answer.token();
  heard->node = answer.node();
  heard->services.assign(answer.services().begin(), answer.services().end());
  heard->port = port;
  heard->path = path;
  heard->mac = view.source();
  if (survey_token_ == 0 || answer.token() != survey_token_) return true;
  const bool known =
      std::any_of(survey_.begin(), survey_.end(), [&](const Announcement& a) {
        return a.mac == heard->mac && a.port == port;
      });
  if (!known && survey_.size() < kMaxSurvey) survey_.push_back(*heard);
  return true;
}

}  // namespace tripwire

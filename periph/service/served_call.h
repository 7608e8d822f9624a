// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_SERVED_CALL_H_
#define TRIPWIRE_PERIPH_SERVICE_SERVED_CALL_H_

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "nic/comm/rpc.h"
#include "periph/proto/periph.pb.h"
#include "periph/service/access.h"

namespace tripwire::periph {

// One call of the service "periph", to be answered exactly once, on any thread.
// Movable. The request stays valid as long as the call.
class ServedCall {
 public:
  ServedCall(rpc::Call call, std::shared_ptr<const proto::Request> request, Asker asker)
      : call_(std::move(call)), request_(std::move(request)), asker_(std::move(asker)) {}

  const proto::Request& request() const { return *request_; }
  const Asker& asker() const { return asker_; }
  rpc::Call& rpc() { return call_; }  // for bulk data, and the session

  // `cache`: as rpc::Call::Reply; false for what may as well run again.
  void Answer(const proto::Reply& reply, rpc::BulkBuffer bulk = {}, size_t bulk_bytes = 0,
              bool cache = true);
  // REQUIRES: !status.ok() or the answer has no content.
  void Answer(const absl::Status& status, bool cache = true);

 private:
  rpc::Call call_;
  std::shared_ptr<const proto::Request> request_;
  Asker asker_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_SERVED_CALL_H_

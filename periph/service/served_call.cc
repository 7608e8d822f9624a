// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/served_call.h"

#include <string>
#include <vector>

#include "periph/proto/messages.h"

namespace tripwire::periph {
namespace {

// Any reply fits what rpc::Server was started with (control_service.cc); one
// line of an error, with room to spare.
constexpr size_t kMaxErrorBytes = 1024;

}  // namespace

void ServedCall::Answer(const proto::Reply& reply, rpc::BulkBuffer bulk, size_t bulk_bytes,
                        bool cache) {
  if (reply.ByteSizeLong() > kMaxCallBytes) {
    return Answer(absl::ResourceExhaustedError("the answer is too long; ask for one device"),
                  cache);
  }
  std::vector<uint8_t> message(reply.ByteSizeLong());
  reply.SerializeToArray(message.data(), static_cast<int>(message.size()));
  call_.Reply(message, std::move(bulk), bulk_bytes, cache);
}

void ServedCall::Answer(const absl::Status& status, bool cache) {
  proto::Reply reply;
  reply.set_code(static_cast<int>(status.code()));
  reply.set_error(Printable(std::string(status.message()), kMaxErrorBytes));
  Answer(reply, {}, 0, cache);
}

}  // namespace tripwire::periph

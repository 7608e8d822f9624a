// SPDX-License-Identifier: BSD-3-Clause
// Linked into fuzzers of code that logs: what they feed it is nonsense, and it
// would say so at every turn.
#include <google/protobuf/stubs/logging.h>

#include "spdlog/spdlog.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  spdlog::set_level(spdlog::level::off);
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

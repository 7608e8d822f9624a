// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_PERF_ALLOCATIONS_H_
#define TRIPWIRE_TESTS_PERF_ALLOCATIONS_H_

#include <cstdint>

namespace tripwire {

// How often this program has asked for memory, with allocations.cc linked in.
// Always 0 under sanitizers, which bring a malloc of their own.
uint64_t Allocations();

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_PERF_ALLOCATIONS_H_

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_FORMAT_MATCH_H_
#define TRIPWIRE_PERIPH_SERVICE_FORMAT_MATCH_H_

#include <string>

namespace tripwire::periph {

// Whether frames of the fixed format `actual` are what was asked for with `wanted`: the
// same media type, and every field of `wanted` there with the same value. An empty
// `wanted` asks for nothing in particular. Ranges and lists are not understood: they
// match only their own text, and a source that could be shared is then not.
bool FormatMatches(const std::string& wanted, const std::string& actual);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_FORMAT_MATCH_H_

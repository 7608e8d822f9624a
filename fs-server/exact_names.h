// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_EXACT_NAMES_H_
#define TRIPWIRE_FS_SERVER_EXACT_NAMES_H_

namespace tripwire::fs {

// Whether two names in a directory are the same only if their bytes are: no folding of
// case, no normal forms. Only then a listing tells which names do not exist. No for file
// systems that are not known to be so. `fd`: open for reading.
bool NamesAreExact(int fd);

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_EXACT_NAMES_H_

// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_FUSE_API_H_
#define TRIPWIRE_FUSE_CLIENT_FUSE_API_H_

// The one place that says which FUSE interface we use.
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#endif  // TRIPWIRE_FUSE_CLIENT_FUSE_API_H_

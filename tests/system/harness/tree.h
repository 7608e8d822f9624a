// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SYSTEM_HARNESS_TREE_H_
#define TRIPWIRE_TESTS_SYSTEM_HARNESS_TREE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace tripwire::systest {

// Everything that differs between two trees: names, types, modes, owners,
// sizes, modification times to the nanosecond, link counts of files, symlink
// targets, devices, user xattrs, and every byte. Empty when they are the same.
// At most `limit` differences.
std::vector<std::string> CompareTrees(const std::string& a,
                                      const std::string& b, size_t limit = 20);

// Makes a tree with what trees have: files of many sizes (empty, one byte, a
// block and its neighbours, some MiB), holes, deep and wide directories, hard
// links, symlinks that dangle, loop or are long, fifos, sockets' worth of
// modes, odd names (newline, 255 bytes, bytes that are no UTF-8), xattrs, old
// and future times. Content follows from `seed`.
void MakeTree(const std::string& root, uint64_t seed, int files);

// Whole-file helpers; they throw std::system_error with the errno.
std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& content);
void AppendFile(const std::string& path, const std::string& content);
std::vector<std::string> ListDirectory(const std::string& path);
bool Exists(const std::string& path);
// Bytes that do not repeat, from a seed.
std::string RandomBytes(uint64_t seed, size_t length);

}  // namespace tripwire::systest

#endif  // TRIPWIRE_TESTS_SYSTEM_HARNESS_TREE_H_

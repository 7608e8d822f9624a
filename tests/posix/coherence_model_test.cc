// SPDX-License-Identifier: BSD-3-Clause
// Two mounts of one tree against a model: names made, moved, removed, looked for and
// listed at random from both sides, one operation after another, each of which must do
// what it would in one tree. Neither side is told what the other does but by the mount.
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>

#include "tests/posix/posix_env.h"

namespace tripwire::posix {
namespace {

class Model {
 public:
  // Sides are the test's directory through either mount.
  Model(std::string one, std::string two, unsigned seed)
      : sides_{std::move(one), std::move(two)}, random_(seed) {}

  // Empty, or what went wrong.
  std::string Run(int steps) {
    for (int d = 0; d < kDirectories; ++d) {
      if (mkdir((sides_[0] + Directory(d)).c_str(), 0755) != 0) return "mkdir";
    }
    for (int step = 0; step < steps; ++step) {
      // Mostly one side for a while, so that it comes to know much.
      if (step % 40 == 0) side_ = Pick(2);
      const int side = Pick(10) == 0 ? 1 - side_ : side_;
      if (const std::string wrong = Step(sides_[side]); !wrong.empty()) {
        return "step " + std::to_string(step) + ", side " + std::to_string(side) + ": " + wrong;
      }
      if (Pick(1000) == 0) usleep(static_cast<useconds_t>(Pick(12)) * 100'000);
    }
    return {};
  }

 private:
  static constexpr int kDirectories = 3, kNames = 60;
  using Path = std::pair<int, int>;  // directory, name
  struct Object {
    bool is_directory = false;
  };

  int Pick(int count) { return std::uniform_int_distribution(0, count - 1)(random_); }
  static std::string Directory(int d) { return "/d" + std::to_string(d); }
  static std::string Name(const Path& path) {
    return Directory(path.first) + "/n" + std::to_string(path.second);
  }
  // Whether a call did what it should: 0, or fail with `error`.
  static std::string Judge(const std::string& what, int result, int error) {
    const int got = result == 0 ? 0 : errno;
    if (got == error) return {};
    return what + ": " + (got ? strerror(got) : "done") + ", should be " +
           (error ? strerror(error) : "done");
  }
  std::shared_ptr<Object> At(const Path& path) const {
    const auto found = tree_.find(path);
    return found == tree_.end() ? nullptr : found->second;
  }

  std::string Step(const std::string& side) {
    const Path path{Pick(kDirectories), Pick(kNames)};
    const Path other{Pick(kDirectories), Pick(kNames)};
    const std::string name = side + Name(path);
    const int what = Pick(100);
    if (what < 45) return Look(name, path);
    if (what < 55) return Make(name, path);
    if (what < 68) return Remove(name, path);
    if (what < 80) return Rename(side, path, other);
    if (what < 86) return ListAll(side, path.first);
    if (what < 93) return Link(side, path, other);
    return LookForMany(side + Directory(path.first));
  }
  std::string Look(const std::string& name, const Path& path) {
    struct stat st;
    return Judge("look " + name, lstat(name.c_str(), &st), At(path) ? 0 : ENOENT);
  }
  std::string Make(const std::string& name, const Path& path) {
    const bool exists = At(path) != nullptr;
    int result = 0;
    auto object = std::make_shared<Object>();
    switch (Pick(3)) {
      case 0: {
        const UniqueFd fd(open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644));
        result = fd ? 0 : -1;
        break;
      }
      case 1:
        result = mkdir(name.c_str(), 0755);
        object->is_directory = true;
        break;
      default:
        result = symlink("nowhere", name.c_str());
    }
    if (!exists) tree_[path] = std::move(object);
    return Judge("make " + name, result, exists ? EEXIST : 0);
  }
  std::string Remove(const std::string& name, const Path& path) {
    const auto object = At(path);
    const int result = object && object->is_directory ? rmdir(name.c_str()) : unlink(name.c_str());
    tree_.erase(path);
    return Judge("remove " + name, result, object ? 0 : ENOENT);
  }
  std::string Rename(const std::string& side, const Path& from, const Path& to) {
    const auto object = At(from), replaced = At(to);
    int error = 0;
    if (!object) {
      error = ENOENT;
    } else if (replaced && replaced->is_directory && !object->is_directory) {
      error = EISDIR;
    } else if (replaced && !replaced->is_directory && object->is_directory) {
      error = ENOTDIR;
    } else if (object != replaced) {  // two names of one object both stay
      tree_[to] = object;
      tree_.erase(from);
    }
    return Judge("rename " + Name(from) + " to " + Name(to),
                 rename((side + Name(from)).c_str(), (side + Name(to)).c_str()), error);
  }
  std::string Link(const std::string& side, const Path& from, const Path& to) {
    const auto object = At(from);
    if (object && object->is_directory) return {};
    const int error = !object ? ENOENT : At(to) ? EEXIST : 0;
    if (error == 0) tree_[to] = object;
    return Judge("link " + Name(from) + " to " + Name(to),
                 link((side + Name(from)).c_str(), (side + Name(to)).c_str()), error);
  }
  std::string ListAll(const std::string& side, int directory) {
    std::set<std::string> there, should;
    for (const std::string& name : List(side + Directory(directory))) there.insert(name);
    for (const auto& [path, object] : tree_) {
      if (path.first == directory) should.insert("n" + std::to_string(path.second));
    }
    if (there == should) return {};
    return "a listing of " + std::to_string(there.size()) + " names, should be " +
           std::to_string(should.size());
  }
  std::string LookForMany(const std::string& directory) {
    struct stat st;
    for (int i = 0; i < 8; ++i) {
      const std::string name = directory + "/none" + std::to_string(i);
      if (auto wrong = Judge("look " + name, stat(name.c_str(), &st), ENOENT); !wrong.empty()) {
        return wrong;
      }
    }
    return {};
  }

  const std::string sides_[2];
  std::mt19937 random_;
  int side_ = 0;
  std::map<Path, std::shared_ptr<Object>> tree_;
};

// TRIPWIRE_SEED=N TRIPWIRE_STEPS=N run another one.
TEST_F(CoherenceTest, WhateverIsDoneFromBothSidesIsDoneToOneTree) {
  const char* const seed_text = getenv("TRIPWIRE_SEED");
  const char* const steps_text = getenv("TRIPWIRE_STEPS");
  const auto seed = static_cast<unsigned>(seed_text ? atoi(seed_text) : 1);
  EXPECT_EQ("", Model(dir(), Second(), seed).Run(steps_text ? atoi(steps_text) : 2500))
      << "seed " << seed;
}

}  // namespace
}  // namespace tripwire::posix

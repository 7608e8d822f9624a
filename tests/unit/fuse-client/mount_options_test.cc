// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/mount_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace tripwire::fuse {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

absl::Status Parse(std::vector<const char*> words, MountOptions* options,
                   bool is_root = true) {
  return ParseCommandLine(static_cast<int>(words.size()), words.data(), is_root,
                          options);
}

MountOptions MustParse(std::vector<const char*> words, bool is_root = true) {
  MountOptions options;
  const absl::Status status = Parse(std::move(words), &options, is_root);
  EXPECT_TRUE(status.ok()) << status;
  return options;
}

std::string ErrorOf(std::vector<const char*> words) {
  MountOptions options;
  const absl::Status status = Parse(std::move(words), &options);
  EXPECT_FALSE(status.ok());
  const std::string message(status.message());
  EXPECT_EQ(std::string::npos, message.find('\n')) << message;
  return message;
}

TEST(MountOptions, SourceAndMountPoint) {
  MountOptions o = MustParse({"tw-mount", "host:data", "/mnt"});
  EXPECT_EQ("host", o.node);
  EXPECT_EQ("data", o.fs.export_name);
  EXPECT_EQ("/mnt", o.mountpoint);
  EXPECT_FALSE(o.foreground);
  o = MustParse({"tw-mount", ":data:with:colons", "/mnt"});
  EXPECT_EQ("", o.node);
  EXPECT_EQ("data:with:colons", o.fs.export_name);
  EXPECT_THAT(ErrorOf({"tw-mount", "nocolon", "/mnt"}), HasSubstr("nocolon"));
  EXPECT_THAT(ErrorOf({"tw-mount", "a:b"}), HasSubstr("too few"));
  EXPECT_THAT(ErrorOf({"tw-mount", "a:b", "c", "d"}), HasSubstr("too many"));
}

TEST(MountOptions, ProgramOptionsInAnyOrder) {
  const MountOptions o =
      MustParse({"tw-mount", "--port", "memif:/a", "h:d", "-f", "-o", "ro", "/mnt",
                 "--port=eth:lan0", "-v", "--log=/tmp/log", "--node", "me"});
  EXPECT_THAT(o.ports, ElementsAre("memif:/a", "eth:lan0"));
  EXPECT_TRUE(o.foreground);
  EXPECT_TRUE(o.verbose);
  EXPECT_TRUE(o.fs.read_only);
  EXPECT_EQ("/tmp/log", o.log_file);
  EXPECT_EQ("me", o.own_node);
  EXPECT_THAT(ErrorOf({"tw-mount", "h:d", "/mnt", "--bogus"}), HasSubstr("--bogus"));
  EXPECT_THAT(ErrorOf({"tw-mount", "h:d", "/mnt", "--port"}), HasSubstr("--port"));
}

TEST(MountOptions, AsMountHelper) {
  MountOptions o = MustParse({"/sbin/mount.tripwire", "h:d", "/mnt", "-sfnv", "-o",
                              "rw,_netdev,noauto,nofail,user=joe,x-systemd.automount,"
                              "port=memif:/run/x\\,listen,noatime,nosuid,defaults",
                              "-t", "tripwire"});
  EXPECT_TRUE(o.fake);
  EXPECT_FALSE(o.foreground);
  EXPECT_TRUE(o.sloppy);
  EXPECT_THAT(o.ports, ElementsAre("memif:/run/x,listen"));
  EXPECT_THAT(o.kernel_options, Contains("noatime"));
  EXPECT_THAT(o.kernel_options, Contains("nosuid"));
  EXPECT_THAT(o.kernel_options, Not(Contains("_netdev")));
}

TEST(MountOptions, RootMountsForEverybodyOthersForThemselves) {
  EXPECT_THAT(MustParse({"tw-mount", "h:d", "/m"}, true).kernel_options,
              ElementsAre("allow_other", "default_permissions"));
  EXPECT_TRUE(MustParse({"tw-mount", "h:d", "/m"}, false).kernel_options.empty());
  EXPECT_THAT(MustParse({"tw-mount", "h:d", "/m", "-o",
                         "noallow_other,nodefault_permissions,ro"})
                  .kernel_options,
              ElementsAre("ro"));
  EXPECT_THAT(MustParse({"tw-mount", "h:d", "/m", "-o",
                         "allow_other,default_permissions"}, false)
                  .kernel_options,
              ElementsAre("allow_other", "default_permissions"));
}

TEST(MountOptions, PatienceCachingAndLocks) {
  MountOptions o = MustParse({"tw-mount", "h:d", "/m", "-o", "soft,timeo=15"});
  EXPECT_TRUE(o.fs.patience.soft);
  EXPECT_EQ(1500 * kMillisecond, o.fs.patience.timeout_ns);
  EXPECT_EQ(EIO, o.fs.patience.error);
  EXPECT_EQ(ETIMEDOUT,
            MustParse({"tw-mount", "h:d", "/m", "-o", "softerr"}).fs.patience.error);
  EXPECT_FALSE(MustParse({"tw-mount", "h:d", "/m", "-o", "soft,hard"}).fs.patience.soft);
  o = MustParse({"tw-mount", "h:d", "/m", "-o", "actimeo=3,acdirmax=0.5"});
  EXPECT_EQ(3.0, o.fs.file_timeout_s);
  EXPECT_EQ(0.5, o.fs.dir_timeout_s);
  o = MustParse({"tw-mount", "h:d", "/m", "-o", "noac"});
  EXPECT_EQ(0.0, o.fs.file_timeout_s);
  EXPECT_TRUE(o.fs.sync);
  EXPECT_FALSE(MustParse({"tw-mount", "h:d", "/m"}).fs.file_timeout_s.has_value());
  o = MustParse({"tw-mount", "h:d", "/m", "-o", "local_lock=flock"});
  EXPECT_TRUE(o.fs.local_flock);
  EXPECT_FALSE(o.fs.local_posix);
  EXPECT_TRUE(MustParse({"tw-mount", "h:d", "/m", "-o", "nolock"}).fs.local_posix);
}

TEST(MountOptions, SizesAreWholePages) {
  const MountOptions o =
      MustParse({"tw-mount", "h:d", "/m", "-o", "max_read=70000,wsize=4096"});
  EXPECT_EQ(69632u, o.max_read);
  EXPECT_EQ(4096u, o.fs.max_write);
}

TEST(MountOptions, BadOnesAreNamed) {
  for (const char* bad :
       {"nonsense", "nonsense=1", "timeo=soon", "timeo=0", "actimeo=-1", "actimeo=nan",
        "max_read=1", "max_read=99999999", "local_lock=some", "port=", "retrans=x"}) {
    const std::string word = bad;
    EXPECT_THAT(ErrorOf({"tw-mount", "h:d", "/m", "-o", bad}),
                HasSubstr(word.substr(0, word.find('='))));
  }
  EXPECT_TRUE(MustParse({"tw-mount", "h:d", "/m", "-s", "-o", "nonsense"}).sloppy);
}

TEST(MountOptions, HelpAndVersionNeedNothingElse) {
  EXPECT_TRUE(MustParse({"tw-mount", "--help"}).show_help);
  EXPECT_TRUE(MustParse({"tw-mount", "--version"}).show_version);
}

}  // namespace
}  // namespace tripwire::fuse

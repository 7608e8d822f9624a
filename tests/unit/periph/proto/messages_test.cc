// SPDX-License-Identifier: BSD-3-Clause
#include "periph/proto/messages.h"

#include <gtest/gtest.h>

namespace tripwire::periph {
namespace {

TEST(PrintableTest, IsOneLineWithoutControlCharacters) {
  EXPECT_EQ(Printable("a\nb\tc\x7f"), "a b c ");
  EXPECT_EQ(Printable("\x1b[2J"), " [2J");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "2J"),
            " 2J")
      << "CSI in one character";
  EXPECT_EQ(Printable("\xc2\xa0\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
            "\xc2\xa0\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
}

TEST(PrintableTest, IsUtf8WhateverItIsMadeOf) {
  EXPECT_EQ(Printable("a\xff"), "a?");
  EXPECT_EQ(Printable("\xc3"), "?");
  EXPECT_EQ(Printable("\xed\xa0\x80"), "???") << "a surrogate";
}

TEST(PrintableTest, IsCutBetweenCharacters) {
  EXPECT_EQ(Printable("abc", 2), "ab");
  EXPECT_EQ(Printable("a\xe2\x82\xac", 3), "a");
  EXPECT_EQ(Printable("a\xe2\x82\xac", 4), "a\xe2\x82\xac");
}

TEST(StatusTest, APeerCannotSayWhatOnlyOurSideKnows) {
  EXPECT_TRUE(ToStatus(0, "").ok());
  EXPECT_EQ(ToStatus(5, "gone"), absl::NotFoundError("gone"));
  for (const int code : {1, 4, 17, -1, 1'000'000}) {
    EXPECT_EQ(ToStatus(code, "x").code(), absl::StatusCode::kUnknown) << code;
  }
}

}  // namespace
}  // namespace tripwire::periph

// SPDX-License-Identifier: BSD-3-Clause
// Line settings and the terminal flags they stand for.
#include "periph/device/line_settings.h"

#include <asm/termbits.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace tripwire::periph {
namespace {

LineMode ModeFor(const std::string& name, const std::string& value) {
  LineSettings settings;
  EXPECT_TRUE(SetLineControl(settings, name, value).ok()) << name << value;
  LineMode mode;
  // Every flag that must be cleared is set before.
  mode.control_flags = ~0U;
  mode.input_flags = IXON | IXOFF | IXANY;
  Apply(settings, mode);
  return mode;
}

TEST(LineSettingsTest, EachValueHasItsFlags) {
  EXPECT_EQ(
      ModeFor("parity", "none").control_flags & (PARENB | PARODD | CMSPAR), 0u);
  EXPECT_EQ(
      ModeFor("parity", "even").control_flags & (PARENB | PARODD | CMSPAR),
      uint32_t{PARENB});
  EXPECT_EQ(ModeFor("parity", "odd").control_flags & (PARENB | PARODD | CMSPAR),
            uint32_t{PARENB | PARODD});
  EXPECT_EQ(
      ModeFor("parity", "mark").control_flags & (PARENB | PARODD | CMSPAR),
      uint32_t{PARENB | PARODD | CMSPAR});
  EXPECT_EQ(
      ModeFor("parity", "space").control_flags & (PARENB | PARODD | CMSPAR),
      uint32_t{PARENB | CMSPAR});
  EXPECT_EQ(ModeFor("bits", "5").control_flags & CSIZE, uint32_t{CS5});
  EXPECT_EQ(ModeFor("bits", "7").control_flags & CSIZE, uint32_t{CS7});
  EXPECT_EQ(ModeFor("bits", "8").control_flags & CSIZE, uint32_t{CS8});
  EXPECT_EQ(ModeFor("stop", "1").control_flags & CSTOPB, 0u);
  EXPECT_EQ(ModeFor("stop", "2").control_flags & CSTOPB, uint32_t{CSTOPB});
  EXPECT_EQ(ModeFor("flow", "rtscts").control_flags & CRTSCTS, CRTSCTS);
  EXPECT_EQ(ModeFor("flow", "rtscts").input_flags & (IXON | IXOFF), 0u);
  EXPECT_EQ(ModeFor("flow", "xonxoff").control_flags & CRTSCTS, 0u);
  EXPECT_EQ(ModeFor("flow", "xonxoff").input_flags & (IXON | IXOFF | IXANY),
            uint32_t{IXON | IXOFF});
  EXPECT_EQ(ModeFor("flow", "none").input_flags & (IXON | IXOFF | IXANY), 0u);
}

TEST(LineSettingsTest, SpeedsHaveTheirConstantOrGoByNumber) {
  EXPECT_EQ(ModeFor("speed", "9600").control_flags & CBAUD, uint32_t{B9600});
  EXPECT_EQ(ModeFor("speed", "115200").control_flags & CBAUD,
            uint32_t{B115200});
  EXPECT_EQ(ModeFor("speed", "115200").output_speed, 115200u);
  const LineMode odd = ModeFor("speed", "31250");
  EXPECT_EQ(odd.control_flags & CBAUD, uint32_t{BOTHER});
  EXPECT_EQ((odd.control_flags >> IBSHIFT) & CBAUD, uint32_t{BOTHER});
  EXPECT_EQ(odd.input_speed, 31250u);
  EXPECT_EQ(odd.output_speed, 31250u);
}

TEST(LineSettingsTest, WhatIsAppliedIsReadBack) {
  for (const Control& control : LineControls({})) {
    std::vector<std::string> values = control.choices;
    if (values.empty()) values = {"50", "2400", "250000", "1000000", "4000000"};
    for (const std::string& value : values) {
      LineSettings settings;
      ASSERT_TRUE(SetLineControl(settings, control.name, value).ok());
      LineMode mode;
      Apply(settings, mode);
      EXPECT_EQ(SettingsOf(mode), settings) << control.name << "=" << value;
    }
  }
}

TEST(LineSettingsTest, ControlsShowWhatWasSet) {
  const std::map<std::string, std::string> wanted = {{"speed", "1200"},
                                                     {"bits", "7"},
                                                     {"parity", "even"},
                                                     {"stop", "2"},
                                                     {"flow", "rtscts"}};
  LineSettings settings;
  for (const auto& entry : wanted) {
    EXPECT_TRUE(SetLineControl(settings, entry.first, entry.second).ok());
  }
  std::map<std::string, std::string> seen;
  for (const Control& control : LineControls(settings)) {
    seen[control.name] = control.value;
    EXPECT_FALSE(control.help.empty());
  }
  EXPECT_EQ(seen, wanted);
}

TEST(LineSettingsTest, BadValuesAreRefusedAndChangeNothing) {
  const std::pair<const char*, const char*> bad[] = {
      {"speed", "0"},        {"speed", "-1"},      {"speed", "fast"},
      {"speed", ""},         {"speed", "9600x"},   {"bits", "9"},
      {"bits", "4"},         {"parity", "EVEN"},   {"parity", ""},
      {"stop", "1.5"},       {"flow", "hardware"}, {"speed", "4294967296"},
      {"speed", "100000001"}};
  for (const auto& entry : bad) {
    LineSettings settings;
    const absl::Status status =
        SetLineControl(settings, entry.first, entry.second);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
        << entry.first << entry.second;
    EXPECT_NE(status.message().find(entry.first), std::string::npos);
    EXPECT_EQ(settings, LineSettings{});
  }
  LineSettings settings;
  EXPECT_EQ(SetLineControl(settings, "colour", "red").code(),
            absl::StatusCode::kNotFound);
}

TEST(LineSettingsTest, RawIsRawAndCookedIsNot) {
  LineMode mode;
  mode.input_flags = ICRNL | IXON | ISTRIP;
  mode.local_flags = ICANON | ECHO | ISIG;
  EXPECT_FALSE(IsRaw(mode));
  MakeRaw(mode);
  EXPECT_FALSE(IsRaw(mode)) << "flow control is a setting of its own";
  Apply(LineSettings{}, mode);
  EXPECT_TRUE(IsRaw(mode));
  EXPECT_EQ(mode.characters[VMIN], 1);
  EXPECT_EQ(mode.characters[VTIME], 0);
}

}  // namespace
}  // namespace tripwire::periph

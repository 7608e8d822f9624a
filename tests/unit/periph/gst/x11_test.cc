// SPDX-License-Identifier: BSD-3-Clause
// The kind x11 against a screen in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "periph/device/device.h"
#include "periph/media/input_event.h"
#include "tests/unit/periph/gst/collecting_taker.h"
#include "tests/unit/periph/gst/xvfb.h"

// Last, because of Xlib.
#include "tests/unit/periph/gst/x_program.h"

namespace tripwire::periph {
namespace {

using testing::HasSubstr;

class X11KindTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(server_.display().empty()) << "Xvfb does not start";
    auto screen = MakeDevice("x11:" + server_.display(), clock_);
    ASSERT_TRUE(screen.ok()) << screen.status();
    screen_ = *std::move(screen);
  }
  static absl::Status Send(Sink& sink, const proto::InputEvent& event) {
    const std::string bytes = event.SerializeAsString();
    Frame frame;
    frame.data = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
    return sink.Put(frame);
  }
  static absl::Status Key(Sink& sink, KeySym keysym, bool down) {
    proto::InputEvent event;
    event.set_kind(down ? proto::InputEvent::KEY_DOWN
                        : proto::InputEvent::KEY_UP);
    event.set_keysym(static_cast<uint32_t>(keysym));
    return Send(sink, event);
  }
  SystemClock clock_;
  Xvfb server_;
  std::unique_ptr<Device> screen_;
};

TEST_F(X11KindTest, ThePictureIsWhatIsOnTheScreen) {
  EXPECT_TRUE(screen_->Describe().present);
  EXPECT_THAT(screen_->Describe().sink_formats,
              testing::ElementsAre(kInputFormat));
  XProgram program(server_.display(), 0x3366cc);
  CollectingTaker taker;
  auto source =
      screen_->StartSource("video/x-raw, format=RGB, framerate=20/1", taker);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT((*source)->format(), HasSubstr("width=320, height=240"));
  const auto frames = taker.WaitFor(3);
  ASSERT_GE(frames.size(), 3u);
  const auto picture = frames[2].data;
  ASSERT_EQ(picture.size(), 320u * 240 * 3);
  for (const size_t at :
       {size_t{0}, picture.size() / 3 / 2, picture.size() / 3 - 1}) {
    EXPECT_EQ(picture[3 * at], 0x33);
    EXPECT_EQ(picture[3 * at + 1], 0x66);
    EXPECT_EQ(picture[3 * at + 2], 0xcc);
  }
}

TEST_F(X11KindTest, KeysArriveAsTheyWereMeant) {
  XProgram program(server_.display(), 0);
  auto input = screen_->StartSink("");
  ASSERT_TRUE(input.ok()) << input.status();
  // Plain, with shift, with none of its own on this keyboard.
  for (const KeySym keysym :
       {KeySym{XK_a}, KeySym{XK_A}, KeySym{XK_exclam}, KeySym{XK_Return},
        KeySym{XK_Cyrillic_zhe}, KeySym{0x1000000 + 0x1F600}}) {
    ASSERT_TRUE(Key(**input, keysym, true).ok());
    EXPECT_EQ(program.NextKey(KeyPress), keysym);
    ASSERT_TRUE(Key(**input, keysym, false).ok());
    program.NextKey(KeyRelease);
  }
}

TEST_F(X11KindTest, ButtonsArriveWhereThePointerIs) {
  XProgram program(server_.display(), 0);
  auto input = screen_->StartSink(kInputFormat);
  ASSERT_TRUE(input.ok()) << input.status();
  proto::InputEvent press;
  press.set_kind(proto::InputEvent::BUTTON_DOWN);
  press.set_button(3);
  press.set_x(12);
  press.set_y(34);
  ASSERT_TRUE(Send(**input, press).ok());
  const XEvent event = program.Next();
  ASSERT_EQ(event.type, ButtonPress);
  EXPECT_EQ(event.xbutton.button, 3u);
  EXPECT_EQ(event.xbutton.x_root, 12);
  EXPECT_EQ(event.xbutton.y_root, 34);
}

TEST_F(X11KindTest, WhatIsHeldDownIsLetGoWhenTheUserGoes) {
  XProgram program(server_.display(), 0);
  auto input = screen_->StartSink("");
  ASSERT_TRUE(input.ok()) << input.status();
  ASSERT_TRUE(Key(**input, XK_Control_L, true).ok());
  ASSERT_TRUE(Key(**input, XK_c, true).ok());
  EXPECT_TRUE(program.IsDown(XK_Control_L));
  input->reset();
  EXPECT_FALSE(program.IsDown(XK_Control_L));
  EXPECT_FALSE(program.IsDown(XK_c));
}

TEST_F(X11KindTest, NonsenseIsRefusedAndHarmsNothing) {
  auto input = screen_->StartSink("");
  ASSERT_TRUE(input.ok()) << input.status();
  Frame frame;
  const std::vector<uint8_t> noise(300, 0xff);
  frame.data = noise;
  EXPECT_EQ((*input)->Put(frame).code(), absl::StatusCode::kInvalidArgument);
  for (const uint32_t number : {0u, 4u, 99u, 255u, 0xffffffffu}) {
    proto::InputEvent event;
    event.set_keysym(number);
    event.set_button(number);
    event.set_x(-1e300);
    event.set_y(std::numeric_limits<double>::quiet_NaN());
    for (int kind = 0; kind < 7; ++kind) {
      event.set_kind(static_cast<proto::InputEvent::Kind>(kind));
      EXPECT_TRUE(Send(**input, event).ok());
    }
  }
  EXPECT_EQ(screen_->StartSink("video/x-raw").status().code(),
            absl::StatusCode::kUnimplemented);
}

TEST_F(X11KindTest, AServerThatDiesEndsTheStreamAndNotTheProgram) {
  CollectingTaker taker;
  auto source = screen_->StartSource("", taker);
  ASSERT_TRUE(source.ok()) << source.status();
  auto input = screen_->StartSink("");
  ASSERT_TRUE(input.ok()) << input.status();
  ASSERT_FALSE(taker.WaitFor(1).empty());
  server_.Stop();
  const auto end = taker.WaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(end->message()), HasSubstr(server_.display()));
  EXPECT_EQ(Key(**input, XK_a, true).code(), absl::StatusCode::kUnavailable);
  source->reset();
  EXPECT_FALSE(screen_->Describe().present);
  EXPECT_EQ(screen_->StartSource("", taker).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(X11KindGrammar, ADisplayIsChecked) {
  SystemClock clock;
  for (const char* spec :
       {"x11:", "x11:nonsense", "x11:\":0\" ! filesink location=/tmp/x",
        "x11::0 x"}) {
    EXPECT_EQ(MakeDevice(spec, clock).status().code(),
              absl::StatusCode::kInvalidArgument)
        << spec;
  }
  // Absent is not wrong: it may come.
  auto absent = MakeDevice("x11::4321", clock);
  ASSERT_TRUE(absent.ok()) << absent.status();
  EXPECT_FALSE((*absent)->Describe().present);
  EXPECT_THAT((*absent)->Describe().why_absent, HasSubstr(":4321"));
}

}  // namespace
}  // namespace tripwire::periph

// SPDX-License-Identifier: BSD-3-Clause
#include "periph/media/media_writer.h"

#include <gst/app/gstappsink.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "periph/device/passing_sink.h"
#include "periph/media/formats.h"
#include "periph/media/sink_line.h"

namespace tripwire::periph {
namespace {

enum class Medium { kVideo, kSound, kOther };

absl::StatusOr<Medium> MediumOf(const std::string& format) {
  InitGst();
  const absl::StatusOr<CapsRef> caps = CapsOfFormat(format);
  if (!caps.ok()) return caps.status();
  if (IsRawVideo(caps->get())) return Medium::kVideo;
  if (IsRawAudio(caps->get())) return Medium::kSound;
  return Medium::kOther;
}

struct FileType {
  const char* suffix;
  Medium medium;
  const char* line;  // before the file
  bool pictures = false;
};

// What is written without loss where the file type allows. Multiplexers make
// their inputs only when somebody links to them.
constexpr FileType kFileTypes[] = {
    {".y4m", Medium::kVideo, "y4menc ! "},
    {".avi", Medium::kVideo, "capsfilter caps=video/x-raw ! avimux ! "},
    {".mkv", Medium::kVideo, "capsfilter caps=video/x-raw ! matroskamux ! "},
    {".webm", Medium::kVideo, "vp8enc deadline=1 ! webmmux ! "},
    {".png", Medium::kVideo, "pngenc ! ", true},
    {".jpg", Medium::kVideo, "jpegenc ! ", true},
    {".jpeg", Medium::kVideo, "jpegenc ! ", true},
    {".wav", Medium::kSound, "wavenc ! "},
    {".mkv", Medium::kSound, "capsfilter caps=audio/x-raw ! matroskamux ! "},
    {".flac", Medium::kSound, "flacenc ! "},
    {".ogg", Medium::kSound, "vorbisenc ! oggmux ! "},
};

// Whether its only '%' is %d, or %Nd with a small N.
bool IsNumberPattern(const std::string& path) {
  const size_t percent = path.find('%');
  const size_t end = path.find_first_not_of("0123456789", percent + 1);
  return end != std::string::npos && end - percent <= 4 && path[end] == 'd' &&
         path.find('%', end) == std::string::npos;
}

// Passes what an element makes to somebody who is no element.
class ByteTaker {
 public:
  explicit ByteTaker(TakeBytes take) : take_(std::move(take)) {}
  static GstFlowReturn OnSample(GstAppSink* from, gpointer self) {
    const SampleRef sample(gst_app_sink_pull_sample(from));
    GstBuffer* buffer =
        sample == nullptr ? nullptr : gst_sample_get_buffer(sample.get());
    GstMapInfo map;
    if (buffer == nullptr || !gst_buffer_map(buffer, &map, GST_MAP_READ))
      return GST_FLOW_OK;
    const bool goes_on =
        static_cast<ByteTaker*>(self)->Take({map.data, map.size});
    gst_buffer_unmap(buffer, &map);
    return goes_on ? GST_FLOW_OK : GST_FLOW_EOS;
  }
  // Whoever waits for room in `sink` must hear that there will be none.
  void StopsWith(Sink* sink) {
    const std::lock_guard lock(mutex_);
    sink_ = sink;
    if (!status_.ok()) sink_->Cancel();
  }
  // CANCELLED: nobody reads.
  absl::Status status() {
    const std::lock_guard lock(mutex_);
    return status_;
  }

 private:
  bool Take(std::span<const uint8_t> bytes) {
    if (!status().ok()) return false;
    const absl::StatusOr<bool> taken = take_(bytes);
    const std::lock_guard lock(mutex_);
    if (!taken.ok()) status_ = taken.status();
    if (taken.ok() && !*taken) status_ = absl::CancelledError("nobody reads");
    if (!status_.ok() && sink_ != nullptr) sink_->Cancel();
    return status_.ok();
  }

  const TakeBytes take_;
  std::mutex mutex_;
  absl::Status status_;
  Sink* sink_ = nullptr;
};

class ByteSink final : public PassingSink {
 public:
  ByteSink(std::unique_ptr<Sink> sink, const std::shared_ptr<ByteTaker>& to)
      : PassingSink(std::move(sink), to), to_(*to) {}

 private:
  absl::Status Judge(const absl::Status& status) override {
    const absl::Status taken = to_.status();
    return taken.ok() ? status : taken;
  }
  ByteTaker& to_;  // kept
};

// As a value in a launch line.
std::string Quoted(const std::string& text) {
  return absl::StrCat(
      "\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sink>> WriteToBytes(const std::string& format,
                                                   TakeBytes take) {
  const absl::StatusOr<Medium> medium = MediumOf(format);
  if (!medium.ok()) return medium.status();
  const char* line = *medium == Medium::kVideo   ? "y4menc ! "
                     : *medium == Medium::kSound ? "wavenc ! "
                                                 : "";
  auto to = std::make_shared<ByteTaker>(std::move(take));
  absl::StatusOr<std::unique_ptr<Sink>> sink = StartSinkLine(
      absl::StrCat(line, "appsink name=out sync=false"), format,
      [to](GstElement* bin) {
        const ElementRef out(gst_bin_get_by_name(GST_BIN(bin), "out"));
        GstAppSinkCallbacks callbacks{};
        callbacks.new_sample = &ByteTaker::OnSample;
        gst_app_sink_set_callbacks(GST_APP_SINK(out.get()), &callbacks,
                                   to.get(), nullptr);
      });
  if (!sink.ok()) return sink.status();
  to->StopsWith(sink->get());
  return std::make_unique<ByteSink>(*std::move(sink), std::move(to));
}

absl::StatusOr<std::unique_ptr<Sink>> WriteToFile(const std::string& format,
                                                  const std::string& path) {
  const absl::StatusOr<Medium> medium = MediumOf(format);
  if (!medium.ok()) return medium.status();
  std::string line;
  bool known = false, pictures = false;
  for (const FileType& type : kFileTypes) {
    if (!path.ends_with(type.suffix)) continue;
    known = true;
    if (type.medium != *medium) continue;
    line = type.line;
    pictures = type.pictures;
  }
  if (known && line.empty() && *medium != Medium::kOther) {
    return absl::InvalidArgumentError(
        absl::StrCat("a file like ", path, " cannot hold ", format));
  }
  const bool many = pictures && !TakesOnePicture(path);
  if (many && !IsNumberPattern(path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", path, "': the only '%' may be one number, such as %d or %04d"));
  }
  return StartSinkLine(absl::StrCat(line, many ? "multifilesink" : "filesink",
                                    " sync=false location=", Quoted(path)),
                       format);
}

bool TakesOnePicture(const std::string& path) {
  for (const FileType& type : kFileTypes) {
    if (type.pictures && path.ends_with(type.suffix)) {
      return path.find('%') == std::string::npos;
    }
  }
  return false;
}

}  // namespace tripwire::periph

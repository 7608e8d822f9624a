// SPDX-License-Identifier: BSD-3-Clause
#include "periph/media/media_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "periph/media/formats.h"
#include "periph/media/gst_sink.h"

namespace tripwire::periph {
namespace {

// A sink with elements of its own.
class OwnedSink final : public Sink {
 public:
  OwnedSink(ElementRef bin, std::unique_ptr<Sink> sink)
      : bin_(std::move(bin)), sink_(std::move(sink)) {}
  const std::string& format() const override { return sink_->format(); }
  uint64_t max_frame_bytes() const override { return sink_->max_frame_bytes(); }
  absl::Status Put(const Frame& frame) override { return sink_->Put(frame); }
  absl::Status Drain() override { return sink_->Drain(); }
  void Cancel() override { sink_->Cancel(); }

 private:
  ElementRef bin_;  // goes after the sink
  std::unique_ptr<Sink> sink_;
};

absl::StatusOr<std::unique_ptr<Sink>> StartLine(const std::string& line,
                                                const std::string& format) {
  InitGst();
  GError* error = nullptr;
  GstElement* parsed = gst_parse_bin_from_description_full(
      line.c_str(), TRUE, nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (parsed == nullptr) {
    const std::string why = error != nullptr ? error->message : line;
    g_clear_error(&error);
    return absl::UnimplementedError(
        absl::StrCat(why, ": is its plug-in installed?"));
  }
  g_clear_error(&error);
  ElementRef bin(GST_ELEMENT(gst_object_ref_sink(parsed)));
  const PadRef pad(gst_element_get_static_pad(bin.get(), "sink"));
  const CapsRef takes(gst_pad_query_caps(pad.get(), nullptr));
  absl::StatusOr<std::unique_ptr<Sink>> sink =
      GstSink::Start(bin.get(), takes.get(), format, GstSink::Timing::kKeep);
  if (!sink.ok()) return sink.status();
  return std::make_unique<OwnedSink>(std::move(bin), *std::move(sink));
}

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

// What is written without loss where the file type allows.
constexpr FileType kFileTypes[] = {
    {".y4m", Medium::kVideo, "y4menc ! "},
    {".avi", Medium::kVideo, "avimux ! "},
    {".mkv", Medium::kVideo, "matroskamux ! "},
    {".webm", Medium::kVideo, "vp8enc deadline=1 ! webmmux ! "},
    {".png", Medium::kVideo, "pngenc ! ", true},
    {".jpg", Medium::kVideo, "jpegenc ! ", true},
    {".jpeg", Medium::kVideo, "jpegenc ! ", true},
    {".wav", Medium::kSound, "wavenc ! "},
    {".mkv", Medium::kSound, "matroskamux ! "},
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

// As a value in a launch line.
std::string Quoted(const std::string& text) {
  return absl::StrCat(
      "\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sink>> WriteToPipe(const std::string& format,
                                                  int fd) {
  const absl::StatusOr<Medium> medium = MediumOf(format);
  if (!medium.ok()) return medium.status();
  const char* line = *medium == Medium::kVideo   ? "y4menc ! "
                     : *medium == Medium::kSound ? "wavenc ! "
                                                 : "";
  return StartLine(absl::StrCat(line, "fdsink sync=false fd=", fd), format);
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
  return StartLine(absl::StrCat(line, many ? "multifilesink" : "filesink",
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

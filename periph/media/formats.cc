// SPDX-License-Identifier: BSD-3-Clause
#include "periph/media/formats.h"

#include <gst/audio/audio.h>
#include <gst/video/video.h>

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace tripwire::periph {
namespace {

constexpr std::string_view kVideo = "video/x-raw";
constexpr std::string_view kAudio = "audio/x-raw";

// Leaves out "(string)", "(int)" and "(fraction)" where what follows says as
// much.
std::string WithoutTypes(const std::string& caps) {
  std::string out;
  for (size_t i = 0; i < caps.size();) {
    const std::string_view rest(caps.data() + i, caps.size() - i);
    size_t skip = 0;
    for (const std::string_view type : {"(string)", "(int)", "(fraction)"}) {
      if (!rest.starts_with(type) || rest.size() == type.size()) continue;
      const char next = rest[type.size()];
      const bool word = std::isalpha(static_cast<unsigned char>(next)) != 0;
      if (type != "(string)" || word || next == '{') skip = type.size();
    }
    if (skip == 0) out.push_back(caps[i]);
    i += std::max<size_t>(skip, 1);
  }
  return out;
}

// Structure `i` alone, in ordinary memory: null if it is in another kind.
CapsRef PlainStructure(const GstCaps* caps, guint i) {
  const GstCapsFeatures* features = gst_caps_get_features(caps, i);
  if (features != nullptr && !gst_caps_features_is_any(features) &&
      !gst_caps_features_is_equal(features,
                                  GST_CAPS_FEATURES_MEMORY_SYSTEM_MEMORY)) {
    return nullptr;
  }
  CapsRef one(gst_caps_new_empty());
  gst_caps_append_structure(
      one.get(), gst_structure_copy(gst_caps_get_structure(caps, i)));
  return one;
}

bool AllRaw(const GstCaps* caps, std::string_view media_type) {
  if (caps == nullptr || gst_caps_is_any(caps) || gst_caps_is_empty(caps))
    return false;
  for (guint i = 0; i < gst_caps_get_size(caps); ++i) {
    if (gst_structure_get_name(gst_caps_get_structure(caps, i)) != media_type)
      return false;
    if (PlainStructure(caps, i) == nullptr) return false;
  }
  return true;
}

// Whether `field` of some structure of `have` admits what `want` asks.
bool Admits(const GstCaps* have, const GstCaps* want, const char* field) {
  for (guint i = 0; i < gst_caps_get_size(want); ++i) {
    const GValue* wanted =
        gst_structure_get_value(gst_caps_get_structure(want, i), field);
    if (wanted == nullptr) return true;
    for (guint k = 0; k < gst_caps_get_size(have); ++k) {
      const GValue* had =
          gst_structure_get_value(gst_caps_get_structure(have, k), field);
      if (had == nullptr || gst_value_intersect(nullptr, had, wanted))
        return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<CapsRef> CapsOfFormat(const std::string& format) {
  if (format.empty()) return CapsRef(gst_caps_new_any());
  CapsRef caps(gst_caps_from_string(format.c_str()));
  if (caps == nullptr || gst_caps_is_empty(caps.get())) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", format, "' is not a format"));
  }
  return caps;
}

std::string FormatOfCaps(const GstCaps* caps) {
  if (caps == nullptr || gst_caps_is_any(caps)) return kByteStream;
  const std::string exact = TakeString(gst_caps_to_string(caps));
  std::string brief = WithoutTypes(exact);
  const CapsRef again(gst_caps_from_string(brief.c_str()));
  return again != nullptr && gst_caps_is_equal(again.get(), caps) ? brief
                                                                  : exact;
}

std::vector<std::string> FormatsOfCaps(const GstCaps* caps) {
  if (gst_caps_is_any(caps)) return {kByteStream};
  std::vector<std::string> formats;
  for (guint i = 0; i < gst_caps_get_size(caps); ++i) {
    const CapsRef one = PlainStructure(caps, i);
    if (one == nullptr) continue;
    std::string format = FormatOfCaps(one.get());
    if (std::find(formats.begin(), formats.end(), format) == formats.end()) {
      formats.push_back(std::move(format));
    }
  }
  return formats;
}

CapsRef Intersect(const GstCaps* first, const GstCaps* second) {
  // Not changed, though the signature cannot say so.
  return CapsRef(gst_caps_intersect_full(const_cast<GstCaps*>(first),
                                         const_cast<GstCaps*>(second),
                                         GST_CAPS_INTERSECT_FIRST));
}

CapsRef InOrdinaryMemory(const GstCaps* caps) {
  if (gst_caps_is_any(caps)) return CapsRef(gst_caps_new_any());
  CapsRef plain(gst_caps_new_empty());
  for (guint i = 0; i < gst_caps_get_size(caps); ++i) {
    CapsRef one = PlainStructure(caps, i);
    if (one != nullptr)
      plain.reset(gst_caps_merge(plain.release(), one.release()));
  }
  return plain;
}

bool IsByteStream(const GstCaps* caps) {
  return caps == nullptr || gst_caps_is_any(caps) ||
         (gst_caps_get_size(caps) == 1 &&
          std::string_view(gst_structure_get_name(
              gst_caps_get_structure(caps, 0))) == kByteStream);
}
bool IsRawVideo(const GstCaps* caps) { return AllRaw(caps, kVideo); }
bool IsRawAudio(const GstCaps* caps) { return AllRaw(caps, kAudio); }

bool HasRaw(const GstCaps* caps, const char* media_type) {
  return gst_caps_is_any(caps) ||
         !gst_caps_is_empty(OnlyRaw(caps, media_type).get());
}

CapsRef OnlyRaw(const GstCaps* caps, const char* media_type) {
  CapsRef raw(gst_caps_new_empty());
  for (guint i = 0; !gst_caps_is_any(caps) && i < gst_caps_get_size(caps);
       ++i) {
    if (!gst_structure_has_name(gst_caps_get_structure(caps, i), media_type))
      continue;
    CapsRef one = PlainStructure(caps, i);
    if (one != nullptr) raw.reset(gst_caps_merge(raw.release(), one.release()));
  }
  return raw;
}

CapsRef Fixate(CapsRef caps) {
  caps.reset(gst_caps_truncate(gst_caps_make_writable(caps.release())));
  GstStructure* structure = gst_caps_get_structure(caps.get(), 0);
  const auto nearest = [structure](const char* field, int value) {
    if (gst_structure_has_field(structure, field)) {
      gst_structure_fixate_field_nearest_int(structure, field, value);
    } else {
      gst_structure_set(structure, field, G_TYPE_INT, value, nullptr);
    }
  };
  const auto choose = [structure](const char* field, const char* value) {
    if (gst_structure_has_field(structure, field)) {
      gst_structure_fixate_field_string(structure, field, value);
    } else {
      gst_structure_set(structure, field, G_TYPE_STRING, value, nullptr);
    }
  };
  if (IsRawVideo(caps.get())) {
    choose("format", "I420");
    nearest("width", 640);
    nearest("height", 480);
    if (gst_structure_has_field(structure, "framerate")) {
      gst_structure_fixate_field_nearest_fraction(structure, "framerate", 30,
                                                  1);
    } else {
      gst_structure_set(structure, "framerate", GST_TYPE_FRACTION, 30, 1,
                        nullptr);
    }
  } else if (IsRawAudio(caps.get())) {
    choose("format", "S16LE");
    choose("layout", "interleaved");
    nearest("rate", 48000);
    nearest("channels", 2);
  }
  return CapsRef(gst_caps_fixate(caps.release()));
}

uint64_t LikelyFrameBytes(const GstCaps* caps, uint64_t first_bytes) {
  GstVideoInfo video;
  if (IsRawVideo(caps) && gst_video_info_from_caps(&video, caps)) {
    return std::max<uint64_t>(GST_VIDEO_INFO_SIZE(&video), first_bytes);
  }
  if (IsRawAudio(caps)) return std::max<uint64_t>(first_bytes, 4096);
  // Compressed pictures differ in size; the stream asks for larger slots if
  // need be.
  return std::max<uint64_t>(first_bytes * 2, uint64_t{64} << 10);
}

std::string ConverterLine(const GstCaps* have, const GstCaps* want) {
  if (IsRawVideo(want)) {
    const bool rate = !Admits(have, want, "framerate");
    return absl::StrCat(rate ? "videorate ! " : "",
                        "videoconvert ! videoscale");
  }
  if (IsRawAudio(want)) return "audioconvert ! audioresample";
  return "";
}

absl::Status StatusOfError(GstMessage* message) {
  GError* error = nullptr;
  gchar* debug_text = nullptr;
  gst_message_parse_error(message, &error, &debug_text);
  const std::string debug = TakeString(debug_text);
  std::string line = absl::StrCat(GST_OBJECT_NAME(GST_MESSAGE_SRC(message)),
                                  ": ", error->message);
  line = absl::StrReplaceAll(line, {{"\n", " "}});
  absl::StatusCode code = absl::StatusCode::kUnavailable;
  if (g_error_matches(error, GST_RESOURCE_ERROR,
                      GST_RESOURCE_ERROR_NOT_AUTHORIZED)) {
    code = absl::StatusCode::kPermissionDenied;
  } else if (g_error_matches(error, GST_RESOURCE_ERROR,
                             GST_RESOURCE_ERROR_BUSY)) {
    code = absl::StatusCode::kFailedPrecondition;
  } else if (g_error_matches(error, GST_CORE_ERROR,
                             GST_CORE_ERROR_NEGOTIATION) ||
             g_error_matches(error, GST_STREAM_ERROR,
                             GST_STREAM_ERROR_FORMAT) ||
             debug.find("not-negotiated") != std::string::npos) {
    code = absl::StatusCode::kUnimplemented;
    line = absl::StrCat(GST_OBJECT_NAME(GST_MESSAGE_SRC(message)),
                        ": the format cannot be had");
  }
  g_error_free(error);
  return absl::Status(code, line);
}

}  // namespace tripwire::periph

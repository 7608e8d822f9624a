// SPDX-License-Identifier: BSD-3-Clause
#include "periph/kinds/gst/controls.h"

#include <cctype>
#include <functional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "periph/media/gst_ptr.h"

namespace tripwire::periph {
namespace {

// A name that GStreamer made: that of the factory and a number.
bool IsNamed(GstElement* element) {
  const std::string_view name = GST_OBJECT_NAME(element);
  GstElementFactory* factory = gst_element_get_factory(element);
  if (factory == nullptr) return false;
  const std::string_view made = GST_OBJECT_NAME(factory);
  if (!name.starts_with(made)) return true;
  for (const char c : name.substr(made.size())) {
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) return true;
  }
  return name.size() == made.size();
}

std::vector<ElementRef> NamedElements(GstElement* bin) {
  std::vector<ElementRef> named;
  GstIterator* all = gst_bin_iterate_elements(GST_BIN(bin));
  GValue item = G_VALUE_INIT;
  while (gst_iterator_next(all, &item) == GST_ITERATOR_OK) {
    auto* element = GST_ELEMENT(g_value_get_object(&item));
    if (IsNamed(element))
      named.emplace_back(GST_ELEMENT(gst_object_ref(element)));
    g_value_reset(&item);
  }
  g_value_unset(&item);
  gst_iterator_free(all);
  return named;
}

bool IsKnob(const GParamSpec* spec) {
  if ((spec->flags & G_PARAM_READABLE) == 0) return false;
  const std::string_view name = spec->name;
  if (name == "name" || name == "parent") return false;
  const GType type = spec->value_type;
  return G_TYPE_IS_ENUM(type) || G_TYPE_IS_FLAGS(type) ||
         type == GST_TYPE_FRACTION || type == G_TYPE_BOOLEAN ||
         type == G_TYPE_INT || type == G_TYPE_UINT || type == G_TYPE_INT64 ||
         type == G_TYPE_UINT64 || type == G_TYPE_LONG || type == G_TYPE_ULONG ||
         type == G_TYPE_FLOAT || type == G_TYPE_DOUBLE || type == G_TYPE_STRING;
}

bool IsWritable(const GParamSpec* spec) {
  if ((spec->flags & G_PARAM_WRITABLE) == 0 ||
      (spec->flags & G_PARAM_CONSTRUCT_ONLY) != 0) {
    return false;
  }
  const std::string_view name = spec->name;
  if (spec->value_type == G_TYPE_STRING) return name == "text";
  return name.find("fd") == std::string_view::npos &&
         name.find("port") == std::string_view::npos;
}

std::string RangeOf(const GParamSpec* spec) {
  const auto range = [](auto low, auto high) {
    return absl::StrCat(" (", low, " to ", high, ")");
  };
  if (G_IS_PARAM_SPEC_INT(spec)) {
    return range(G_PARAM_SPEC_INT(spec)->minimum,
                 G_PARAM_SPEC_INT(spec)->maximum);
  }
  if (G_IS_PARAM_SPEC_UINT(spec)) {
    return range(G_PARAM_SPEC_UINT(spec)->minimum,
                 G_PARAM_SPEC_UINT(spec)->maximum);
  }
  if (G_IS_PARAM_SPEC_INT64(spec)) {
    return range(G_PARAM_SPEC_INT64(spec)->minimum,
                 G_PARAM_SPEC_INT64(spec)->maximum);
  }
  if (G_IS_PARAM_SPEC_UINT64(spec)) {
    return range(G_PARAM_SPEC_UINT64(spec)->minimum,
                 G_PARAM_SPEC_UINT64(spec)->maximum);
  }
  if (G_IS_PARAM_SPEC_FLOAT(spec)) {
    return range(G_PARAM_SPEC_FLOAT(spec)->minimum,
                 G_PARAM_SPEC_FLOAT(spec)->maximum);
  }
  if (G_IS_PARAM_SPEC_DOUBLE(spec)) {
    return range(G_PARAM_SPEC_DOUBLE(spec)->minimum,
                 G_PARAM_SPEC_DOUBLE(spec)->maximum);
  }
  return "";
}

std::vector<std::string> ChoicesOf(const GParamSpec* spec) {
  std::vector<std::string> choices;
  if (spec->value_type == G_TYPE_BOOLEAN) return {"false", "true"};
  if (!G_IS_PARAM_SPEC_ENUM(spec)) return choices;
  const GEnumClass* values = G_PARAM_SPEC_ENUM(spec)->enum_class;
  for (guint i = 0; i < values->n_values; ++i)
    choices.push_back(values->values[i].value_nick);
  return choices;
}

std::string ValueOf(GstElement* element, GParamSpec* spec) {
  GValue value = G_VALUE_INIT;
  g_value_init(&value, spec->value_type);
  g_object_get_property(G_OBJECT(element), spec->name, &value);
  std::string text;
  if (spec->value_type == G_TYPE_STRING) {
    const gchar* string = g_value_get_string(&value);
    text = string != nullptr ? string : "";
  } else if (G_IS_PARAM_SPEC_ENUM(spec)) {
    const GEnumValue* chosen = g_enum_get_value(
        G_PARAM_SPEC_ENUM(spec)->enum_class, g_value_get_enum(&value));
    text = chosen != nullptr ? chosen->value_nick
                             : absl::StrCat(g_value_get_enum(&value));
  } else {
    text = TakeString(gst_value_serialize(&value));
  }
  g_value_unset(&value);
  return text;
}

// Calls `use` for every control until it returns true; whether it did.
bool ForEach(GstElement* bin,
             const std::function<bool(GstElement*, GParamSpec*)>& use) {
  for (const ElementRef& element : NamedElements(bin)) {
    guint count = 0;
    GParamSpec** specs = g_object_class_list_properties(
        G_OBJECT_GET_CLASS(element.get()), &count);
    bool done = false;
    for (guint i = 0; i < count && !done; ++i) {
      if (IsKnob(specs[i])) done = use(element.get(), specs[i]);
    }
    g_free(specs);
    if (done) return true;
  }
  return false;
}

std::string NameOf(GstElement* element, const GParamSpec* spec) {
  return absl::StrCat(GST_OBJECT_NAME(element), ".", spec->name);
}

absl::Status Set(GstElement* element, GParamSpec* spec,
                 const std::string& text) {
  const std::string name = NameOf(element, spec);
  if (!IsWritable(spec))
    return absl::InvalidArgumentError(absl::StrCat(name, " cannot be set"));
  GValue value = G_VALUE_INIT;
  g_value_init(&value, spec->value_type);
  bool good = true;
  if (spec->value_type == G_TYPE_STRING) {
    g_value_set_string(&value, text.c_str());
  } else {
    // Validation changes a value that is out of range, and says so.
    good = gst_value_deserialize(&value, text.c_str()) &&
           !g_param_value_validate(spec, &value);
  }
  if (good) g_object_set_property(G_OBJECT(element), spec->name, &value);
  g_value_unset(&value);
  if (good) return absl::OkStatus();
  const std::vector<std::string> choices = ChoicesOf(spec);
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text, "' is no value of ", name,
      choices.empty()
          ? RangeOf(spec)
          : absl::StrCat(": it is one of ", absl::StrJoin(choices, ", "))));
}

}  // namespace

std::vector<Control> ControlsOf(GstElement* bin) {
  std::vector<Control> controls;
  ForEach(bin, [&controls](GstElement* element, GParamSpec* spec) {
    const gchar* blurb = g_param_spec_get_blurb(spec);
    Control control;
    control.name = NameOf(element, spec);
    control.value = ValueOf(element, spec);
    control.help = absl::StrCat(blurb != nullptr ? blurb : "", RangeOf(spec));
    control.choices = ChoicesOf(spec);
    control.writable = IsWritable(spec);
    controls.push_back(std::move(control));
    return false;
  });
  return controls;
}

absl::Status SetControlOf(GstElement* bin, const std::string& name,
                          const std::string& value) {
  absl::Status status = absl::NotFoundError(
      absl::StrCat("the device has no control '", name, "'"));
  ForEach(bin, [&](GstElement* element, GParamSpec* spec) {
    if (NameOf(element, spec) != name) return false;
    status = Set(element, spec, value);
    return true;
  });
  return status;
}

}  // namespace tripwire::periph

// SPDX-License-Identifier: BSD-3-Clause
#include "periph/kinds/gst/pipeline.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/media/formats.h"

namespace tripwire::periph {
namespace {

constexpr uint64_t kFirstFrameNs = 8 * kSecond;

// What the branch must do for `wanted` when it is given `had`. UNIMPLEMENTED if
// nothing helps.
absl::StatusOr<GstBranch::Plan> PlanOf(const GstCaps* had,
                                       const std::string& format) {
  absl::StatusOr<CapsRef> wanted = CapsOfFormat(format);
  if (!wanted.ok()) return wanted.status();
  GstBranch::Plan plan;
  if (gst_caps_can_intersect(had, wanted->get())) {
    const CapsRef both = Intersect(wanted->get(), had);
    plan.caps = InOrdinaryMemory(both.get());
    if (!gst_caps_is_empty(plan.caps.get())) return plan;
  }
  for (const char* type : {"video/x-raw", "audio/x-raw"}) {
    CapsRef raw = OnlyRaw(wanted->get(), type);
    if (gst_caps_is_empty(raw.get()) || !HasRaw(had, type)) continue;
    plan.converters = ConverterLine(had, raw.get());
    plan.caps = std::move(raw);
    return plan;
  }
  return absl::UnimplementedError(absl::StrCat(
      "it cannot make '", format, "'; it makes ", FormatOfCaps(had)));
}

}  // namespace

// One user's hold on a run.
class GstSource final : public Source {
 public:
  GstSource(std::shared_ptr<GstPipelineRun> run,
            std::unique_ptr<GstBranch> branch)
      : run_(std::move(run)),
        branch_(std::move(branch)),
        format_(branch_->format()),
        max_bytes_(branch_->max_frame_bytes()) {
    branch_->Release();
  }
  ~GstSource() override { run_->Remove(branch_.get()); }
  const std::string& format() const override { return format_; }
  uint64_t max_frame_bytes() const override { return max_bytes_; }

 private:
  // The branch goes before the run.
  std::shared_ptr<GstPipelineRun> run_;
  std::unique_ptr<GstBranch> branch_;
  const std::string format_;
  const uint64_t max_bytes_;
};

absl::StatusOr<std::unique_ptr<Source>> GstPipelineRun::Start(
    GstElement* bin, const GstCaps* makes, const std::string& format,
    FrameTaker& taker, Clock& clock, std::weak_ptr<GstPipelineRun>* run) {
  const std::shared_ptr<GstPipelineRun> started(new GstPipelineRun(bin, clock));
  *run = started;
  return started->Begin(makes, format, taker);
}

GstPipelineRun::GstPipelineRun(GstElement* bin, Clock& clock)
    : clock_(clock),
      pipeline_(GST_ELEMENT(gst_object_ref_sink(gst_pipeline_new(nullptr)))),
      bin_(bin) {
  base_ = gst_element_factory_make("capsfilter", nullptr);
  tee_ = gst_element_factory_make("tee", nullptr);
  g_object_set(tee_, "allow-not-linked", TRUE, nullptr);
  gst_bin_add_many(GST_BIN(pipeline_.get()), bin_, base_, tee_, nullptr);
  gst_element_link_many(bin_, base_, tee_, nullptr);
  const BusRef bus(gst_pipeline_get_bus(GST_PIPELINE(pipeline_.get())));
  gst_bus_set_sync_handler(bus.get(), &GstPipelineRun::OnMessage, this,
                           nullptr);
  bus_thread_ = std::thread([this] { WatchBus(); });
}

GstPipelineRun::~GstPipelineRun() {
  gst_element_set_state(pipeline_.get(), GST_STATE_NULL);
  const BusRef bus(gst_pipeline_get_bus(GST_PIPELINE(pipeline_.get())));
  gst_bus_set_sync_handler(bus.get(), nullptr, nullptr, nullptr);
  // The state change made the bus deaf; this one must be heard.
  gst_bus_set_flushing(bus.get(), FALSE);
  gst_bus_post(bus.get(), gst_message_new_application(
                              nullptr, gst_structure_new_empty("stop")));
  bus_thread_.join();
  gst_bin_remove(GST_BIN(pipeline_.get()), bin_);
}

absl::StatusOr<std::unique_ptr<Source>> GstPipelineRun::Begin(
    const GstCaps* makes, const std::string& format, FrameTaker& taker) {
  const std::lock_guard changing(changing_);
  absl::StatusOr<GstBranch::Plan> plan = PlanOf(makes, format);
  if (!plan.ok()) return plan.status();
  auto branch = std::make_unique<GstBranch>(*this, clock_, taker);
  {
    const std::lock_guard lock(mutex_);
    branches_.push_back(branch.get());
    if (!error_.ok()) branch->Fail(error_);
  }
  absl::Status status = branch->Join(pipeline_.get(), tee_, *std::move(plan));
  if (status.ok()) status = Play(*branch);
  if (status.ok()) status = branch->WaitFirst(kFirstFrameNs);
  if (status.ok()) status = branch->CheckAdmittedBy(format);
  if (!status.ok()) {
    branch->Stop();
    over_ = true;
    gst_element_set_state(pipeline_.get(), GST_STATE_NULL);
    const std::lock_guard lock(mutex_);
    branches_.clear();
    return status;
  }
  // What it makes stays as it is when others join.
  const PadRef out(gst_element_get_static_pad(base_, "src"));
  base_caps_.reset(gst_pad_get_current_caps(out.get()));
  return std::make_unique<GstSource>(shared_from_this(), std::move(branch));
}

absl::Status GstPipelineRun::Play(GstBranch& branch) {
  GstStateChangeReturn changed =
      gst_element_set_state(pipeline_.get(), GST_STATE_PAUSED);
  live_ = changed == GST_STATE_CHANGE_NO_PREROLL;
  // A camera comes at its own pace; a file must be held to its own.
  branch.SetSync(!live_);
  if (changed != GST_STATE_CHANGE_FAILURE) {
    changed = gst_element_set_state(pipeline_.get(), GST_STATE_PLAYING);
  }
  if (changed != GST_STATE_CHANGE_FAILURE) return absl::OkStatus();
  const absl::Status why = error();
  return why.ok() ? absl::UnavailableError("it cannot be started") : why;
}

absl::StatusOr<std::unique_ptr<Source>> GstPipelineRun::Add(
    const std::string& format, FrameTaker& taker) {
  const std::lock_guard changing(changing_);
  const CapsRef had(base_caps_ != nullptr ? gst_caps_ref(base_caps_.get())
                                          : gst_caps_new_any());
  absl::StatusOr<GstBranch::Plan> plan = PlanOf(had.get(), format);
  if (!plan.ok()) return plan.status();
  if (base_caps_ != nullptr)
    g_object_set(base_, "caps", base_caps_.get(), nullptr);
  plan->queue = true;
  plan->sync = !live_;
  auto branch = std::make_unique<GstBranch>(*this, clock_, taker);
  {
    const std::lock_guard lock(mutex_);
    if (!error_.ok()) return error_;
    branches_.push_back(branch.get());
  }
  absl::Status status = branch->Join(pipeline_.get(), tee_, *std::move(plan));
  if (status.ok()) status = branch->WaitFirst(kFirstFrameNs);
  if (!status.ok()) {
    branch->Stop();
    {
      const std::lock_guard lock(mutex_);
      branches_.erase(
          std::find(branches_.begin(), branches_.end(), branch.get()));
    }
    branch->Leave(pipeline_.get());
    return status;
  }
  return std::make_unique<GstSource>(shared_from_this(), std::move(branch));
}

void GstPipelineRun::Remove(GstBranch* branch) {
  const std::lock_guard changing(changing_);
  branch->Stop();
  bool last;
  {
    const std::lock_guard lock(mutex_);
    last = branches_.size() == 1;
    if (!last)
      branches_.erase(std::find(branches_.begin(), branches_.end(), branch));
  }
  if (!last) return branch->Leave(pipeline_.get());
  over_ = true;
  gst_element_set_state(pipeline_.get(), GST_STATE_NULL);
  const std::lock_guard lock(mutex_);
  branches_.clear();
}

absl::Status GstPipelineRun::error() {
  const std::lock_guard lock(mutex_);
  return error_;
}

void GstPipelineRun::Fail(const absl::Status& why) {
  const std::lock_guard lock(mutex_);
  over_ = true;
  if (!error_.ok()) return;
  error_ = why;
  for (GstBranch* branch : branches_) branch->Fail(why);
}

// On the thread that says it, so that the error is known before the end of the
// stream that follows it.
GstBusSyncReply GstPipelineRun::OnMessage(GstBus*, GstMessage* message,
                                          gpointer self) {
  auto* run = static_cast<GstPipelineRun*>(self);
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
    run->Fail(StatusOfError(message));
    return GST_BUS_PASS;
  }
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS) {
    run->over_ = true;
  } else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_QOS) {
    GstFormat unit;
    guint64 processed = 0, dropped = 0;
    gst_message_parse_qos_stats(message, &unit, &processed, &dropped);
    if (unit == GST_FORMAT_BUFFERS && dropped != GST_CLOCK_TIME_NONE) {
      const std::lock_guard lock(run->mutex_);
      for (GstBranch* branch : run->branches_) branch->CountQos(dropped);
    }
  }
  gst_message_unref(message);
  return GST_BUS_DROP;
}

// Tells the takers of errors of elements that do not end their streams
// themselves.
void GstPipelineRun::WatchBus() {
  const BusRef bus(gst_pipeline_get_bus(GST_PIPELINE(pipeline_.get())));
  while (true) {
    const MessageRef message(gst_bus_timed_pop_filtered(
        bus.get(), GST_CLOCK_TIME_NONE,
        static_cast<GstMessageType>(GST_MESSAGE_ERROR |
                                    GST_MESSAGE_APPLICATION)));
    if (message == nullptr) continue;
    if (GST_MESSAGE_TYPE(message.get()) == GST_MESSAGE_APPLICATION) {
      if (gst_structure_has_name(gst_message_get_structure(message.get()),
                                 "stop"))
        return;
      continue;
    }
    // A branch may go while it is told, but not before `changing_` is free.
    const std::lock_guard changing(changing_);
    std::vector<GstBranch*> branches;
    {
      const std::lock_guard lock(mutex_);
      branches = branches_;
    }
    for (GstBranch* branch : branches) branch->End(error());
  }
}

}  // namespace tripwire::periph

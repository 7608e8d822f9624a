// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_KINDS_GST_PIPELINE_H_
#define TRIPWIRE_PERIPH_KINDS_GST_PIPELINE_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/clock.h"
#include "periph/device/device.h"
#include "periph/kinds/gst/branch.h"
#include "periph/media/gst_ptr.h"

namespace tripwire::periph {

// A source's elements at work: BIN ! capsfilter ! tee, and a branch for each
// format. The first branch decides what the source makes, natively if it can;
// the others convert from that.
//
// Thread safety: all methods.
class GstPipelineRun : public std::enable_shared_from_this<GstPipelineRun> {
 public:
  // Starts it with one branch. `bin` has a source pad "src" and no parent; it
  // has none again when the run is destroyed. Errors as Device::StartSource.
  static absl::StatusOr<std::unique_ptr<Source>> Start(
      GstElement* bin, const GstCaps* makes, const std::string& format,
      FrameTaker& taker, Clock& clock, std::weak_ptr<GstPipelineRun>* run);
  ~GstPipelineRun();

  // Another branch of a running one.
  absl::StatusOr<std::unique_ptr<Source>> Add(const std::string& format,
                                              FrameTaker& taker);
  // It has ended or failed: nothing more comes.
  bool over() const { return over_; }

  bool live() const { return live_; }
  GstElement* pipeline() const { return pipeline_.get(); }
  absl::Status error();  // OK: none
  void Fail(const absl::Status& why);

 private:
  friend class GstSource;
  GstPipelineRun(GstElement* bin, Clock& clock);
  absl::StatusOr<std::unique_ptr<Source>> Begin(const GstCaps* makes,
                                                const std::string& format,
                                                FrameTaker& taker);
  absl::Status Play(GstBranch& branch);
  void Remove(GstBranch* branch);
  static GstBusSyncReply OnMessage(GstBus* bus, GstMessage* message,
                                   gpointer self);
  void WatchBus();

  Clock& clock_;
  ElementRef pipeline_;
  GstElement* bin_;             // owned by the pipeline, and by the device
  GstElement* base_ = nullptr;  // owned by the pipeline
  GstElement* tee_ = nullptr;
  CapsRef base_caps_;  // what the source makes, once known
  std::atomic<bool> live_{false}, over_{false};
  std::mutex changing_;  // adding and removing branches
  std::mutex mutex_;     // of error_ and branches_
  absl::Status error_;
  std::vector<GstBranch*> branches_;
  std::thread bus_thread_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_KINDS_GST_PIPELINE_H_

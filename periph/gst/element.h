// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_GST_ELEMENT_H_
#define TRIPWIRE_PERIPH_GST_ELEMENT_H_

#include <gst/gst.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "periph/client/peripherals.h"
#include "periph/gst/connection.h"
#include "periph/media/gst_ptr.h"
#include "periph/stream/frame.h"

// What the two elements share.
namespace tripwire::periph {

GType TripwireSrcType();   // tripwiresrc
GType TripwireSinkType();  // tripwiresink
GType PolicyType();        // the enum of Policy

// Says on the element's bus what went wrong, as the error that fits.
void PostError(GstElement* element, const absl::Status& why);

// A property that is a string, under the object's lock.
std::string Copy(GstElement* element, const std::string& property);
void Assign(GstElement* element, std::string& property, const GValue* value);

// Ids of the properties that both have; an element's own begin at
// kFirstOwnProperty.
enum SharedProperty : guint {
  kDevice = 1,
  kPort,
  kQueue,
  kExclusive,
  kReconnect,
  kFirstOwnProperty,
};

constexpr auto kPropertyFlags = static_cast<GParamFlags>(
    G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY);

// `queue_says`: where the frames of the queue wait. A literal.
void InstallSharedProperties(GObjectClass* object_class,
                             const char* queue_says);

// The device an element is for, and the way there.
struct ElementState {
  // False if the property is not one that both have.
  bool SetProperty(GstElement* element, guint id, const GValue* value);
  bool GetProperty(GstElement* element, guint id, GValue* value) const;

  // From start to stop. Waits for the network. `is_sink`: what of the device is
  // used.
  absl::StatusOr<proto::DeviceInfo> Connect(GstElement* element, bool is_sink);
  void Disconnect();

  // What the pad can carry: all that the device can, once that is known.
  GstCaps* CapsOf(GstPad* pad, GstCaps* filter) const;

  // Properties, under the object's lock.
  std::string device, ports;
  StreamOptions options;

  // Between start and stop.
  DeviceName name;
  std::shared_ptr<Connection> connection;
  CapsRef caps;  // the device's formats
};

// The same, with a stream that the application may cut short at any time
// (unlock). Stream: FrameStream or FrameOutput.
template <typename Stream>
struct StreamingState : ElementState {
  // In the streaming thread.
  void SetStream(std::unique_ptr<Stream> opened) {
    const std::lock_guard lock(mutex);
    stream = std::move(opened);
    if (cancelled && stream != nullptr) stream->Cancel();
  }
  // From any thread.
  void Cancel() {
    const std::lock_guard lock(mutex);
    cancelled = true;
    if (stream != nullptr) stream->Cancel();
  }
  // A cancelled stream stays so: another is opened for the next frame.
  void EndCancel() {
    const std::lock_guard lock(mutex);
    if (cancelled) stream.reset();
    cancelled = false;
  }

  // `stream` changes under the mutex, in the streaming thread.
  std::mutex mutex;
  std::unique_ptr<Stream> stream;
  bool cancelled = false;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_GST_ELEMENT_H_

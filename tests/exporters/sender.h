// tests/exporters/sender.h - a sink as most tests use it: what is given is brought at once; what did not arrive
// goes first the next time.
#pragma once

#include <memory>
#include <span>
#include <utility>

#include "exporters/fluentbit/forward_codec.h"
#include "exporters/fluentbit/forward_sink.h"
#include "tests/exporters/sample_records.h"

namespace tierlog::exporters::fluentbit::testing {

class Sender {
 public:
  explicit Sender(ForwardOptions options) : sink_(ForwardSink::make(std::move(options), kOrigin).value()) {}

  // How many records from the front arrived.
  Outcome<std::size_t> send(std::span<const store::StoredRecord> records) {
    if (!waits_ && !records.empty()) taken_ = sink_->take(records);
    if (records.empty()) return std::size_t{0};
    waits_ = true;
    TL_TRY(sink_->deliver());
    waits_ = false;
    return taken_;
  }
  OutputCounts counts() const { return sink_->counts(); }

 private:
  std::unique_ptr<ForwardSink> sink_;
  bool waits_ = false;
  std::size_t taken_ = 0;
};

}  // namespace tierlog::exporters::fluentbit::testing

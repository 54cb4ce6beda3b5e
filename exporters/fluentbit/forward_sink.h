// exporters/fluentbit/forward_sink.h - records to a Forward-protocol receiver, acknowledged.
//
//   records --take()--> chunks by tag --deliver()--> connection --> Fluent Bit
//                                  ^-- ack of each --'
//
// PackedForward or CompressedPackedForward, several chunks in flight. A chunk that is sent again keeps its id, so
// that a receiver which remembers ids can tell.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "exporters/options.h"
#include "exporters/output.h"
#include "store/record.h"

namespace tierlog::exporters::fluentbit {

class ForwardSink final : public Output {
 public:
  // Errors: InvalidArgument, when the tag is no pattern. `stop`: see connection.h.
  static Result<std::unique_ptr<ForwardSink>> make(ForwardOptions options, store::Origin origin,
                                                   const std::atomic<bool>* stop = nullptr);
  ~ForwardSink() override;

  std::string target() const override;
  std::size_t take(std::span<const store::StoredRecord> records) override;
  Outcome<void> deliver() override;
  OutputCounts counts() const override;

 private:
  struct Impl;
  explicit ForwardSink(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tierlog::exporters::fluentbit

// exporters/fluentbit/forward_codec.h - the bytes of the Forward protocol; pure, no socket.
//
//   record --append_entry--> entries --wrap--> message -> receiver
//   receiver -> bytes --AckReader--> acknowledged or not
//
// Source: Fluentd's Forward Protocol Specification v1 (PackedForward mode, `chunk` and `size` options,
// EventTime as extension type 0).
#pragma once

#include <string>
#include <string_view>

#include "store/record.h"

namespace tierlog::exporters::fluentbit {

// Appends one [EventTime, {record}] to `entries`. The time is the record's start; seconds beyond 32 bits
// are cut to the range.
void append_entry(std::string& entries, const store::FlowRecord& record, const store::Origin& origin);

// [tag, bin entries, {"chunk": chunk, "size": count}].
std::string wrap_entries(std::string_view tag, std::string_view entries, std::size_t count,
                         std::string_view chunk);
// At most what wrap_entries() puts around entries.
std::size_t envelope_bytes(std::string_view tag, std::string_view chunk);

// A new random chunk id: base64 of 16 bytes.
std::string make_chunk_id();
std::string base64(std::string_view bytes);

// Reads the receiver's answer to one chunk, however it is cut into pieces.
class AckReader {
 public:
  enum class State { NeedMore, Acknowledged, AcknowledgedWithExcess, Wrong };

  explicit AckReader(std::string chunk) : chunk_(std::move(chunk)) {}
  // Excess: bytes behind the ack, which answer nothing that was sent. A state other than NeedMore is final.
  State feed(std::string_view bytes);

 private:
  State judge() const;
  std::string chunk_;
  std::string received_;
};

}  // namespace tierlog::exporters::fluentbit

// exporters/fluentbit/forward_codec.h - the bytes of the Forward protocol; pure, no socket.
//
//   record --append_entry--> entries --[gzip]--> wrap --> message -> receiver
//   receiver -> bytes --AckReader--> which chunks are acknowledged
//
// Source: Fluentd's Forward Protocol Specification v1 (PackedForward and CompressedPackedForward mode,
// options `chunk`, `size` and `compressed`, EventTime as extension type 0).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "exporters/format/record_format.h"
#include "exporters/options.h"
#include "store/flow_store.h"
#include "store/record.h"

namespace tierlog::exporters::fluentbit {

// Appends one [EventTime, {record}] to `entries`. The time is the record's start; seconds beyond 32 bits
// are cut to the range.
void append_entry(std::string& entries, const RecordFormat& format, const store::FlowRecord& record,
                  const store::Origin& origin);

struct Envelope {
  std::string_view tag;
  std::string_view chunk;  // base64 text
  std::size_t count = 0;   // of entries
  Compression compression = Compression::None;
};
// [tag, bin entries, {"chunk": chunk, "size": count, "compressed": "gzip"}]; `entries` in the form that the
// envelope says.
std::string wrap_entries(const Envelope& envelope, std::string_view entries);
// At most what wrap_entries() puts around entries.
std::size_t envelope_bytes(std::string_view tag, std::string_view chunk);

// Chunks of one after the other, without new memory for each.
class Gzip {
 public:
  Gzip();
  Gzip(Gzip&&) noexcept;
  Gzip& operator=(Gzip&&) noexcept;
  ~Gzip();
  // One whole gzip member. Errors: Io (no memory).
  Result<std::string> compress(std::string_view bytes);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A new random chunk id: base64 of 16 bytes.
std::string make_chunk_id();
std::string base64(std::string_view bytes);

// Reads acks one after the other, however they are cut into pieces.
class AckReader {
 public:
  // Bytes of the receiver. False when they cannot be the beginning of an ack: final.
  bool feed(std::string_view bytes);
  // The next whole ack's chunk.
  std::optional<std::string> take();
  // Bytes are there that belong to no ack that was taken.
  bool has_rest() const { return next_.has_value() || !received_.empty(); }
  // Of the last message that was no ack, for people: "HELO", "a map without ack", "…".
  const std::string& complaint() const { return complaint_; }

 private:
  enum class State { NeedMore, Ack, Wrong };
  State judge(std::string& chunk, std::size_t& used);
  std::string received_;
  std::optional<std::string> next_;
  std::string complaint_;
};

// One message with its chunk option, as bytes; pure. `chunk` = base64 text.
std::string encode_packed_forward(std::span<const store::StoredRecord> records, const store::Origin& origin,
                                  const std::string& tag, const std::string& chunk);

}  // namespace tierlog::exporters::fluentbit

// exporters/fluentbit/forward_sink.h - records to a Forward-protocol receiver, acknowledged.
//
//   store/flow_store.h (read_after, behind a cursor) --> [ForwardSink] --PackedForward + chunk--> Fluent Bit
//
// At least once: the caller moves its cursor only after send() said that the receiver acknowledged.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "store/flow_store.h"
#include "store/record.h"

namespace tierlog::exporters::fluentbit {

struct ForwardOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 24224;
  std::string tag = "tierlog.flows";
  std::size_t max_chunk_bytes = 800'000;  // Fluent Bit refuses messages over 1,024,000 by default
  std::chrono::milliseconds timeout{5000};
};

class ForwardSink {
 public:
  explicit ForwardSink(ForwardOptions options, store::Origin origin);
  ForwardSink(ForwardSink&&) noexcept;
  ForwardSink& operator=(ForwardSink&&) noexcept;
  ~ForwardSink();

  // Sends from the front of `records` as many as fit one chunk, waits for its ack, and returns how many
  // were acknowledged (at least one). Connects when needed; drops the connection on any error.
  // Errors: Unavailable (cannot connect, no ack in time, connection closed), InvalidArgument (a record
  // that does not fit a chunk by itself; it must be skipped by the caller, and counted).
  Result<std::size_t> send(std::span<const store::StoredRecord> records);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One PackedForward message with its chunk option, as bytes; pure. `chunk` = base64 text.
std::string encode_packed_forward(std::span<const store::StoredRecord> records, const store::Origin& origin,
                                  const std::string& tag, const std::string& chunk);

}  // namespace tierlog::exporters::fluentbit

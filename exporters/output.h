// exporters/output.h - where records go, as the thread that brings them sees it.
//
//   store/outbox.h --records--> [Output] --> a Forward receiver (exporters/fluentbit), a file (exporters/file)
//
// At least once: whoever brings records moves its cursor when deliver() says that they arrived, and brings
// them again after a restart. Every failure has a cause of a closed list, for counters.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "base/result.h"
#include "store/flow_store.h"

namespace tierlog::exporters {

enum class FailureCause : std::uint8_t {
  Connect,      // no address, refused, no answer to the connection
  Tls,          // certificate, key, or what the other side thinks of ours
  Handshake,    // shared key, user, or a receiver that wants them
  Send,         // the connection broke while bytes went out
  NoAnswer,     // not acknowledged in time
  Closed,       // the receiver closed the connection before it acknowledged
  WrongAnswer,  // it said something that is no acknowledgement
  Disk,         // the file could not be written
  Index,        // the flow index could not be read, or the cursor not be kept
};
inline constexpr std::size_t kFailureCauses = 9;
std::string_view name(FailureCause cause);  // "connect", "no-answer", … as metrics have it

struct Failure {
  FailureCause cause{};
  Error error;

  Failure in(std::string_view context) const { return {cause, error.in(context)}; }
};

template <typename T>
using Outcome = tl::expected<T, Failure>;

inline tl::unexpected<Failure> fail(FailureCause cause, std::string message) {
  return tl::unexpected<Failure>(Failure{cause, Error{ErrorCode::Unavailable, std::move(message), 0}});
}
inline tl::unexpected<Failure> fail(FailureCause cause, Error error) {
  error.code = ErrorCode::Unavailable;
  return tl::unexpected<Failure>(Failure{cause, std::move(error)});
}

// Since the output was made.
struct OutputCounts {
  std::uint64_t records = 0;   // delivered
  std::uint64_t messages = 0;  // chunks, or pieces of a file
  std::uint64_t bytes = 0;     // of them, as they went out
  std::uint64_t skipped = 0;   // records that fit no message
};

class Output {
 public:
  virtual ~Output() = default;
  // "tcp://127.0.0.1:24224", "file:///var/log/tierlog/flows.jsonl"
  virtual std::string target() const = 0;
  // Takes from the front of `records` as many as there is room for, at least one, and keeps them in their
  // outgoing form. Returns how many. Only to be called when nothing waits for deliver().
  virtual std::size_t take(std::span<const store::StoredRecord> records) = 0;
  // Brings what was taken to its end. After a failure what did not arrive is kept: call it again. What the
  // receiver acknowledged is not sent again.
  virtual Outcome<void> deliver() = 0;
  // True: what was delivered could still be lost when the machine loses power, so the cursor has to wait.
  virtual bool holds() const { return false; }
  // Makes it safe where that is due, or, `at_once`, in any case.
  virtual Outcome<void> secure(bool at_once) {
    static_cast<void>(at_once);
    return {};
  }
  virtual OutputCounts counts() const = 0;
};

}  // namespace tierlog::exporters

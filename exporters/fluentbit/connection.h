// exporters/fluentbit/connection.h - one TCP connection to a receiver, with a deadline on every step.
//
//   forward_sink.cpp --bytes--> [Connection] --TCP--> receiver
//
// Never blocks past its deadline and never raises SIGPIPE. Every failure is Unavailable: trying again
// later is all a caller can do about it.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/handle.h"
#include "base/result.h"

namespace tierlog::exporters::fluentbit {

using Deadline = std::chrono::steady_clock::time_point;

class Connection {
 public:
  // Tries each address of `host` (a name or an IPv4 or IPv6 address) in turn until `deadline`. Looking a
  // name up takes the resolver's own time.
  static Result<Connection> open(const std::string& host, std::uint16_t port, Deadline deadline);

  Result<void> send_all(std::string_view bytes, Deadline deadline);
  // At least one byte; the peer's closing is an error.
  Result<std::size_t> receive(std::span<char> into, Deadline deadline);
  // False when the peer closed or said something nobody asked for.
  bool is_quiet() const;

 private:
  explicit Connection(Fd socket) : socket_(std::move(socket)) {}
  Fd socket_;
};

}  // namespace tierlog::exporters::fluentbit

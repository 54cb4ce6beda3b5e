// exporters/fluentbit/connection.h - one connection to a receiver, with a deadline on every step.
//
//   forward_sink.cpp --bytes--> [Connection] --TCP, TLS or a Unix socket--> receiver
//
// Never blocks past its deadline, ends early when the export is to stop, never raises SIGPIPE. Trying again
// later is all that a caller can do about a failure; its cause is for counters.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/handle.h"
#include "exporters/options.h"
#include "exporters/output.h"

namespace tierlog::exporters::fluentbit {

class TlsSession;

using Deadline = std::chrono::steady_clock::time_point;

// "tcp://127.0.0.1:24224", "tls://[::1]:24224", "unix:///run/fluent-bit.sock"
std::string url_of(const ForwardOptions& options);

class Connection {
 public:
  // Tries each address of the host (a name or an IPv4 or IPv6 address) in turn, or the Unix socket, until the
  // timeout. Looking a name up takes the resolver's own time. With TLS the receiver's certificate has been
  // checked when this returns. `stop`, when given, outlives the connection; true ends every wait.
  static Outcome<Connection> open(const ForwardOptions& options, const std::atomic<bool>* stop = nullptr);
  Connection(Connection&&) noexcept;
  Connection& operator=(Connection&&) noexcept;
  ~Connection();

  // The timeout begins anew with each piece that goes out: a slow receiver is none that is gone.
  Outcome<void> send_all(std::string_view bytes, std::chrono::milliseconds timeout);
  // At least one byte; the peer's closing is a failure.
  Outcome<std::size_t> receive(std::span<char> into, Deadline deadline, std::string_view what = "wait for the ack");
  // False when the peer closed or said something nobody asked for.
  bool is_quiet();

 private:
  Connection(Fd socket, const std::atomic<bool>* stop);
  Outcome<void> start_tls(const ForwardOptions& options, Deadline deadline);
  Outcome<void> wait_for(short events, Deadline deadline, std::string_view what, FailureCause cause) const;
  Outcome<void> send_raw(std::string_view bytes, std::chrono::milliseconds timeout);
  Outcome<std::size_t> receive_raw(std::span<char> into, Deadline deadline, std::string_view what);
  static Outcome<Connection> open_unix(const std::string& path, const std::atomic<bool>* stop);
  static Outcome<Connection> open_tcp(const ForwardOptions& options, Deadline deadline, const std::atomic<bool>* stop);

  Fd socket_;
  const std::atomic<bool>* stop_ = nullptr;
  std::unique_ptr<TlsSession> tls_;  // nullptr: plain
};

}  // namespace tierlog::exporters::fluentbit

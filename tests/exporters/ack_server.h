// tests/exporters/ack_server.h - a Forward receiver on loopback that behaves as the test says.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/handle.h"
#include "base/net_types.h"

struct ssl_ctx_st;

namespace tierlog::exporters::fluentbit::testing {

struct Received {
  std::string message;  // as it came
  std::string chunk;    // its option
  std::string tag = {};
  std::size_t count = 0;            // option size
  std::string compressed = {};      // option; empty: none
  std::string entries = {};         // as they came
  std::vector<std::string> ids = {};  // of the records in them
};

// What the receiver does with one message: bytes to answer, then whether it closes the connection.
struct Answer {
  std::string bytes = {};
  bool close = false;
  bool in_single_bytes = false;
};

std::string gunzip(const std::string& bytes);  // "" for what is no whole gzip member
std::string ack_of(const std::string& chunk);  // {"ack": chunk}

struct ServerOptions {
  Family family = Family::V4;
  std::optional<std::size_t> close_after = {};  // closes each connection after that many received bytes
  std::string unix_path = {};                   // listens there and not on loopback
  ssl_ctx_st* tls = nullptr;                    // speaks TLS by it
  // Sent first; then the client's PING is given to `pong`, whose text is the answer ("": the connection is
  // closed without one).
  std::string helo = {};
  std::function<std::string(const std::string& ping)> pong = {};
  // Between any two reads, so that senders meet a full socket.
  std::chrono::milliseconds read_pause{0};
};

class AckServer {
 public:
  using Behaviour = std::function<Answer(const Received&)>;

  // `close_after`: closes each connection after that many received bytes, whatever they are.
  explicit AckServer(Behaviour behaviour, Family family = Family::V4,
                     std::optional<std::size_t> close_after = std::nullopt)
      : AckServer(std::move(behaviour), ServerOptions{.family = family, .close_after = close_after}) {}
  AckServer(Behaviour behaviour, ServerOptions options);
  ~AckServer();

  std::uint16_t port() const { return port_; }
  int connections() const { return connections_; }
  std::vector<Received> received() const;
  // Waits until `count` connections are closed on this side.
  void wait_until_closed(int count) const;

 private:
  void serve();
  struct Line;
  void talk(Line& line);
  bool greet(Line& line, std::string& bytes);
  bool answer(Line& line, const Received& message);

  Behaviour behaviour_;
  ServerOptions options_;
  std::uint16_t port_ = 0;  // before the listener, whose making sets it
  Fd listener_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> connections_ = 0;
  std::atomic<int> closed_ = 0;
  mutable std::mutex mutex_;
  std::vector<Received> received_;
  std::thread thread_;
};

// A loopback listener; `backlog` as listen(2) takes it.
Fd listen_on_loopback(Family family, int backlog, std::uint16_t& port);

}  // namespace tierlog::exporters::fluentbit::testing
